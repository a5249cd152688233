//! What a node says of itself.

use std::{borrow::Cow, fmt, net::SocketAddr, sync::Arc, time::Duration};

/// What a node says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows a primary.
    Replica,
    /// It is alive and did not say.
    Unknown,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "unknown",
        })
    }
}

/// A number that grows with every change of primary: a PostgreSQL timeline, a config epoch, a Raft
/// term. Of two primaries the one with the lower term is the old one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(u128);

impl Term {
    /// The term with this number.
    pub const fn new(number: u128) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn number(self) -> u128 {
        self.0
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which data a node has: the identity of its cluster, and the one that it had before if that tells
/// something.
///
/// PostgreSQL has a system identifier for the life of a cluster. Redis changes its replication id with
/// each promotion and keeps the one before, so that the new primary names the one it supersedes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lineage {
    id: Arc<str>,
    previous: Option<Arc<str>>,
}

impl Lineage {
    /// The data of the cluster with this identity.
    pub fn of(id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            previous: None,
        }
    }

    /// They go on from what had this identity.
    #[must_use]
    pub fn after(mut self, previous: impl Into<Arc<str>>) -> Self {
        self.previous = Some(previous.into());
        self
    }

    /// The identity.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The identity before, if the node tells one.
    pub fn previous(&self) -> Option<&str> {
        self.previous.as_deref()
    }
}

/// Who says what a node is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Authority {
    /// The node itself. Two may say so at once.
    #[default]
    SelfReported,
    /// One that grants the role to one node at a time: a leader lock, a majority, an operator.
    Quorum,
}

/// What a probe saw.
///
/// ```
/// use headless_lb::{Observation, Role, Term};
///
/// let seen = Observation::of(Role::Primary).in_term(Term::new(4)).at_position(0x16B3740);
/// assert_eq!(seen.term(), Some(Term::new(4)));
/// assert!(seen.fence().is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    role: Role,
    fence: Option<Cow<'static, str>>,
    term: Option<Term>,
    lineage: Option<Lineage>,
    position: Option<u64>,
    authority: Authority,
    valid_for: Option<Duration>,
    points_to: Option<SocketAddr>,
}

impl Observation {
    /// The node says that it has this role.
    pub const fn of(role: Role) -> Self {
        Self {
            role,
            fence: None,
            term: None,
            lineage: None,
            position: None,
            authority: Authority::SelfReported,
            valid_for: None,
            points_to: None,
        }
    }

    /// It is the primary and takes no writes now, because of `reason`: the name of a setting, say.
    #[must_use]
    pub fn fenced_by(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.fence = Some(reason.into());
        self
    }

    /// The term of the claim.
    #[must_use]
    pub const fn in_term(mut self, term: Term) -> Self {
        self.term = Some(term);
        self
    }

    /// Whose data the node has.
    #[must_use]
    pub fn in_lineage(mut self, lineage: Lineage) -> Self {
        self.lineage = Some(lineage);
        self
    }

    /// How far the node's data go: what was written (primary) or applied (replica), in bytes.
    #[must_use]
    pub const fn at_position(mut self, position: u64) -> Self {
        self.position = Some(position);
        self
    }

    /// Who says so. Default: the node itself.
    #[must_use]
    pub const fn by_authority(mut self, authority: Authority) -> Self {
        self.authority = authority;
        self
    }

    /// The source says for how long this holds.
    #[must_use]
    pub const fn holding_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }

    /// The node says that the primary is there. A hint: that address is probed, or DNS asked.
    #[must_use]
    pub const fn pointing_to(mut self, primary: SocketAddr) -> Self {
        self.points_to = Some(primary);
        self
    }

    /// The same in another role.
    #[must_use]
    pub(super) const fn in_role(mut self, role: Role) -> Self {
        self.role = role;
        self
    }

    /// A primary that may not be one, for `reason`. Without its term: the claim of who is no primary must not
    /// overrule that of who is.
    #[must_use]
    pub(super) fn disowned(mut self, reason: &'static str) -> Self {
        self.role = Role::Primary;
        self.without_term().fenced_by(reason)
    }

    /// The same, in no term that is known.
    #[must_use]
    pub(super) const fn without_term(mut self) -> Self {
        self.term = None;
        self
    }

    /// What this one does not tell, as the other tells it: all but the role, and who says so. It holds as long as
    /// both do.
    #[must_use]
    pub(super) fn completed_by(self, other: &Self) -> Self {
        Self {
            fence: self.fence.or_else(|| other.fence.clone()),
            term: self.term.or(other.term),
            lineage: self.lineage.or_else(|| other.lineage.clone()),
            position: self.position.or(other.position),
            valid_for: match (self.valid_for, other.valid_for) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            },
            points_to: self.points_to.or(other.points_to),
            ..self
        }
    }

    /// The same, this long ago: what changes by the moment is not known any more.
    #[must_use]
    pub(super) fn aged(mut self, age: Duration) -> Self {
        self.position = None;
        self.valid_for = self.valid_for.map(|time| time.saturating_sub(age));
        self
    }

    /// The role.
    pub const fn role(&self) -> Role {
        self.role
    }

    /// Why a primary takes no writes now; `None` if it does.
    pub fn fence(&self) -> Option<&str> {
        self.fence.as_deref()
    }

    /// The term, if the node has one.
    pub const fn term(&self) -> Option<Term> {
        self.term
    }

    /// Whose data the node has, if it tells.
    pub const fn lineage(&self) -> Option<&Lineage> {
        self.lineage.as_ref()
    }

    /// How far the node's data go, in bytes.
    pub const fn position(&self) -> Option<u64> {
        self.position
    }

    /// Who says so.
    pub const fn authority(&self) -> Authority {
        self.authority
    }

    /// For how long this holds, if the source says.
    pub const fn valid_for(&self) -> Option<Duration> {
        self.valid_for
    }

    /// Where the primary is, by this node.
    pub const fn points_to(&self) -> Option<SocketAddr> {
        self.points_to
    }
}

impl From<Role> for Observation {
    fn from(role: Role) -> Self {
        Self::of(role)
    }
}
