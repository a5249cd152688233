//! How those endpoints stand that do not simply take requests, and why: for people, beside the status.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::slot::{Presence, Slot};
use crate::{eject::Finding, endpoint::Endpoint, outcome::Cause, probe::ProbeError, set::Position};

/// Whether an endpoint takes requests, and if not, in which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum EndpointState {
    /// It takes requests.
    Available,
    /// It takes a part of its share, which grows ([`slow_start`](crate::Builder::slow_start)).
    Starting,
    /// It was ejected, and takes one request at a time until one succeeds.
    OnTrial,
    /// Set aside, for requests to it failed ([`eject`](crate::Builder::eject)).
    Ejected,
    /// Set aside for a moment, for it refuses connections.
    Refused,
    /// Set aside, for its health checks fail ([`check`](crate::Builder::check)).
    Unhealthy,
    /// Never picked: a primary of an older term, whose data diverge.
    Rejected,
    /// New, and not in the set before its first connect ([`warm_up`](crate::Builder::warm_up)).
    Warming,
}

impl fmt::Display for EndpointState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Available => "available",
            Self::Starting => "starting",
            Self::OnTrial => "on trial",
            Self::Ejected => "ejected",
            Self::Refused => "refused",
            Self::Unhealthy => "unhealthy",
            Self::Rejected => "rejected",
            Self::Warming => "warming",
        })
    }
}

/// One endpoint that is not simply available.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) endpoint: Arc<Endpoint>,
    /// What its role says, as a place in the set.
    pub(crate) standing: Position,
    pub(crate) state: EndpointState,
    pub(crate) why: Option<Why>,
    pub(crate) since: Option<Instant>,
    pub(crate) until: Option<Instant>,
}

/// Why it is not.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    Found(Finding),
    FailsChecks(Arc<ProbeError>),
    /// Too few would remain, so it does not count.
    Ignored(Box<Self>),
    /// It is the primary, so it does not count.
    OfThePrimary(Box<Self>),
    Refuses(Option<Cause>),
    /// There is nobody else of its role.
    RefusesAsTheLast(Option<Cause>),
}

impl Why {
    fn ignored(self) -> Self {
        Self::Ignored(Box::new(self))
    }

    /// The rule that ejected it, if it was ejected.
    pub(crate) fn rule(&self) -> Option<&'static str> {
        match self {
            Self::Found(finding) => Some(finding.rule.label()),
            Self::FailsChecks(_) => Some("check"),
            Self::Ignored(why) | Self::OfThePrimary(why) => why.rule(),
            Self::Refuses(_) | Self::RefusesAsTheLast(_) => None,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refuses = |f: &mut fmt::Formatter<'_>, cause: &Option<Cause>| match cause {
            Some(cause) => cause.fmt(f),
            None => f.write_str("no connection"),
        };
        match self {
            Self::Found(finding) => finding.fmt(f),
            Self::FailsChecks(error) => match error.source() {
                Some(source) => write!(f, "{error} ({source})"),
                None => error.fmt(f),
            },
            Self::Ignored(why) => write!(f, "{why}; ignored, too few would remain"),
            Self::OfThePrimary(why) => write!(f, "{why}; ignored, it is the primary"),
            Self::Refuses(cause) => refuses(f, cause),
            Self::RefusesAsTheLast(cause) => {
                refuses(f, cause)?;
                f.write_str(", but there is no other")
            }
        }
    }
}

impl Condition {
    /// How a slot stands; `None` if it is simply available or not in the set any more, or is a rejected one, of which
    /// the tracker knows more.
    pub(super) fn of<S>(
        slot: &Slot<S>,
        standing: Position,
        window: Option<Duration>,
        is_panic: bool,
    ) -> Option<Self> {
        use EndpointState::{Available, Ejected, OnTrial, Refused, Starting, Unhealthy, Warming};
        let of = |state, why, since, until| {
            Some(Self {
                endpoint: Arc::clone(&slot.endpoint),
                standing,
                state,
                why,
                since,
                until,
            })
        };
        match slot.presence {
            Presence::Warming { until } => {
                return of(Warming, None, Some(slot.endpoint.since()), Some(until));
            }
            Presence::Absent { .. } => return None,
            Presence::Live | Presence::Held => {}
        }
        if standing == Position::Rejected {
            return None;
        }
        let is_aside = slot.position == Position::Ejected;
        let (refuses, until) = (slot.connectivity.since(), slot.connectivity.until());
        let last = || slot.endpoint.last_failure();
        // In a panic that is why it is aside, and until when.
        let refuses_alone = is_panic && refuses.is_some();
        // Time does not bring back one that fails its checks as well.
        let is_ill = slot.is_unhealthy() && !is_panic;
        let returns = |until: Option<Instant>| until.filter(|_| !is_ill);
        match slot.outlier.finding() {
            Some((finding, since)) if slot.outlier.is_ejected() && !refuses_alone => {
                let until = slot.outlier.until().max(until);
                let why = Why::Found(finding);
                if is_aside {
                    return of(Ejected, Some(why), Some(since), returns(until));
                }
                return of(Available, Some(why.ignored()), Some(since), until);
            }
            Some((finding, since)) if slot.outlier.is_on_trial() && !is_aside => {
                return of(OnTrial, Some(Why::Found(finding)), Some(since), None);
            }
            _ => {}
        }
        if let Some(unhealthy) = slot.checked.unhealthy()
            && refuses.is_none()
        {
            let why = Why::FailsChecks(Arc::clone(&unhealthy.error));
            let since = Some(unhealthy.since);
            if is_aside {
                return of(Unhealthy, Some(why), since, None);
            }
            let why = match standing {
                Position::Primary => Why::OfThePrimary(Box::new(why)),
                _ => why.ignored(),
            };
            return of(Available, Some(why), since, None);
        }
        if refuses.is_some() && is_aside {
            let why = Some(Why::Refuses(last()));
            return of(Refused, why, refuses, returns(until));
        }
        if refuses.is_some() {
            return of(
                Available,
                Some(Why::RefusesAsTheLast(last())),
                refuses,
                until,
            );
        }
        let (start, window) = (slot.started?, window?);
        of(Starting, None, Some(start), Some(start + window))
    }

    /// Whether it takes requests only because too few would remain.
    pub(crate) fn is_ignored(&self) -> bool {
        matches!(self.why, Some(Why::Ignored(_)))
    }

    /// Whether both say the same, but for the cause.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.state, one.since, one.until, one.standing);
        Arc::ptr_eq(&self.endpoint, &other.endpoint)
            && key(self) == key(other)
            && self.why.as_ref().map(std::mem::discriminant)
                == other.why.as_ref().map(std::mem::discriminant)
    }
}
