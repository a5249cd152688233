//! One published view of a service: the endpoints in order, and what a policy sees of them.
//!
//! ```text
//! EndpointSet = [ primary | replicas | role unknown | ejected | rejected ]
//!                 +-------------- available --------+
//! ```
//!
//! Role and ejection are positions in this order, not flags on the endpoint: a reader cannot see
//! one early, and every group is a slice.

use std::{
    fmt, iter,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;

use crate::{
    endpoint::{Address, Baseline, Endpoint},
    probe::Term,
};

mod asking;
mod candidates;

pub use candidates::{Candidates, Choice};

/// The group of an endpoint in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Position {
    /// The accepted primary.
    Primary,
    /// A replica.
    Replica,
    /// Alive, of unknown role: every endpoint of a service without a probe.
    Unknown,
    /// Set aside: it refuses connections, or its requests or health checks fail. Picked only if nothing else is left.
    /// [`Balancer::explain`](crate::Balancer::explain) tells which.
    Ejected,
    /// Never picked by anything: a primary of an older term, whose data diverge.
    Rejected,
}

impl Position {
    pub(crate) const COUNT: usize = 5;

    /// All of them, in the order of a set.
    pub(crate) const ALL: [Self; Self::COUNT] = [
        Self::Primary,
        Self::Replica,
        Self::Unknown,
        Self::Ejected,
        Self::Rejected,
    ];
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Unknown => "available",
            Self::Ejected => "ejected",
            Self::Rejected => "rejected",
        })
    }
}

/// The endpoints of a service at one moment.
///
/// Immutable; a change publishes another set. It holds counters, not connections: keeping a set
/// keeps no removed pod's connections open.
#[derive(Debug)]
pub struct EndpointSet {
    endpoints: Box<[Arc<Endpoint>]>,
    /// Where each position ends, in the order of [`Position`].
    ends: [usize; Position::COUNT],
    generation: u64,
    id: u64,
    /// Whether an endpoint is on trial, or has just started.
    is_careful: bool,
    reign: Reign,
}

/// Of which accepted primary this set knows. Both numbers grow only, also while there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reign {
    /// Counts the accepted primaries: pairs of endpoint and term.
    pub(crate) generation: u64,
    /// Moves with each new generation and with each loss of a primary. Connections are stamped with it.
    pub(crate) epoch: u64,
    /// The term of the last accepted claim.
    pub(crate) term: Option<Term>,
}

impl EndpointSet {
    /// A set from endpoints in order of position, with how many there are of each.
    pub(crate) fn from_groups(
        endpoints: Vec<Arc<Endpoint>>,
        sizes: [usize; Position::COUNT],
        generation: u64,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let mut end = 0;
        let ends = sizes.map(|size| {
            end += size;
            end
        });
        debug_assert_eq!(end, endpoints.len());
        Self {
            endpoints: endpoints.into(),
            ends,
            generation,
            id: NEXT_ID.fetch_add(1, Relaxed),
            is_careful: false,
            reign: Reign::default(),
        }
    }

    /// The same, with endpoints to be careful with: on trial, or started a moment ago.
    pub(crate) fn with_care(mut self, is_careful: bool) -> Self {
        self.is_careful = is_careful;
        self
    }

    /// The same, under this reign.
    pub(crate) fn under(mut self, reign: Reign) -> Self {
        self.reign = reign;
        self
    }

    pub(crate) fn reign(&self) -> Reign {
        self.reign
    }

    /// The index of the accepted primary.
    #[inline]
    pub(crate) fn primary(&self) -> Option<usize> {
        (self.ends[Position::Primary as usize] > 0).then_some(0)
    }

    /// A set outside any balancer, to test a policy with: all endpoints available, roles unknown.
    ///
    /// ```
    /// use headless_lb::{EndpointSet, Policy, RoundRobin};
    /// use std::net::SocketAddr;
    ///
    /// let set = EndpointSet::of((1..=3).map(|i| SocketAddr::from(([10, 0, 0, i], 80))));
    /// let choice = RoundRobin::new().pick(set.available());
    /// assert!(choice.is_some());
    /// ```
    pub fn of(addresses: impl IntoIterator<Item = impl Into<Address>>) -> Self {
        let now = Instant::now();
        let baseline = Arc::new(Baseline::new(now));
        let endpoint = |address| Arc::new(Endpoint::among(address, now, Arc::clone(&baseline)));
        let endpoints: Vec<_> = addresses
            .into_iter()
            .map(|address| endpoint(address.into()))
            .collect();
        let mut sizes = [0; Position::COUNT];
        sizes[Position::Unknown as usize] = endpoints.len();
        Self::from_groups(endpoints, sizes, 0)
    }

    /// How many endpoints there are, ejected and rejected ones included.
    #[inline]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Grows with every published set of a balancer.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// A number that no other set of this process has: what a policy's table for this set is known by
    /// ([`Policy::prepare`](crate::Policy::prepare)).
    #[inline]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// All endpoints, in order: primary, replicas, unknown, ejected, rejected.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Endpoint>> + Clone {
        self.endpoints.iter()
    }

    /// All endpoints with their positions.
    pub fn positions(&self) -> impl Iterator<Item = (Position, &Arc<Endpoint>)> + Clone {
        use Position::{Ejected, Primary, Rejected, Replica, Unknown};
        [Primary, Replica, Unknown, Ejected, Rejected]
            .into_iter()
            .flat_map(|position| {
                self.endpoints[self.group(position)]
                    .iter()
                    .map(move |endpoint| (position, endpoint))
            })
    }

    /// What a policy sees: primary, replicas and endpoints of unknown role. If none of these is
    /// left, the ejected ones: a request that may fail beats one that must.
    #[inline]
    pub fn available(&self) -> Candidates<'_> {
        // Without an available one, the group of the ejected begins at 0.
        self.candidates(match self.ends[Position::Unknown as usize] {
            0 => self.ends[Position::Ejected as usize],
            available => available,
        })
    }

    #[inline]
    pub(crate) fn at(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(index)
    }

    /// The position of the endpoint at `index`; `None` beyond the end.
    pub(crate) fn position(&self, index: usize) -> Option<Position> {
        let place = self.ends.iter().position(|&end| index < end)?;
        Some(Position::ALL[place])
    }

    /// Whether the endpoint at `index` is picked only if nothing else is left.
    #[inline]
    pub(crate) fn is_ejected(&self, index: usize) -> bool {
        self.group(Position::Ejected).contains(&index)
    }

    /// Everything a pick may fall back to: available ones and ejected ones.
    pub(crate) fn reachable(&self) -> Candidates<'_> {
        self.candidates(self.ends[Position::Ejected as usize])
    }

    /// The first so many endpoints.
    #[inline]
    fn candidates(&self, end: usize) -> Candidates<'_> {
        Candidates {
            set: self,
            start: 0,
            end,
            excluded: &[],
            key: None,
            now: None,
        }
    }

    #[inline]
    fn group(&self, position: Position) -> Range<usize> {
        let index = position as usize;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[index]
    }
}

/// Some endpoints of a set, as a set of their own, and where in the other they are.
#[derive(Debug)]
pub(crate) struct Part {
    set: EndpointSet,
    /// Ascending.
    places: Box<[usize]>,
}

impl Part {
    pub(crate) fn set(&self) -> &EndpointSet {
        &self.set
    }
}

impl EndpointSet {
    /// The endpoints that `keep` holds for, at the same positions.
    pub(crate) fn part(&self, keep: impl Fn(&Endpoint) -> bool) -> Part {
        let (mut endpoints, mut places) = (Vec::new(), Vec::new());
        let mut sizes = [0; Position::COUNT];
        for (place, (position, endpoint)) in self.positions().enumerate() {
            if keep(endpoint) {
                endpoints.push(Arc::clone(endpoint));
                places.push(place);
                sizes[position as usize] += 1;
            }
        }
        Part {
            set: Self::from_groups(endpoints, sizes, self.generation).under(self.reign),
            places: places.into(),
        }
    }
}

impl<'a> IntoIterator for &'a EndpointSet {
    type Item = &'a Arc<Endpoint>;
    type IntoIter = std::slice::Iter<'a, Arc<Endpoint>>;

    fn into_iter(self) -> Self::IntoIter {
        self.endpoints.iter()
    }
}

impl fmt::Display for EndpointSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{endpoint}")?;
        }
        Ok(())
    }
}

/// Endpoints that one request already tried, as ascending indices of one set.
pub(crate) fn indices_of(set: &EndpointSet, tried: &[Arc<Endpoint>]) -> Vec<usize> {
    let known = |endpoint: &Arc<Endpoint>| tried.iter().any(|one| Arc::ptr_eq(one, endpoint));
    iter::zip(0.., set)
        .filter(|(_, endpoint)| known(endpoint))
        .map(|(i, _)| i)
        .collect()
}

#[cfg(test)]
impl EndpointSet {
    /// A set from endpoints with their positions, in any order.
    pub(crate) fn new(members: impl IntoIterator<Item = (Position, Arc<Endpoint>)>) -> Self {
        let mut members: Vec<_> = members.into_iter().collect();
        members.sort_by_key(|(position, _)| *position);
        let size = |position| {
            members
                .iter()
                .filter(|(other, _)| *other == position)
                .count()
        };
        let sizes = Position::ALL.map(size);
        Self::from_groups(
            members.into_iter().map(|(_, endpoint)| endpoint).collect(),
            sizes,
            1,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn endpoints(n: u8) -> Vec<Arc<Endpoint>> {
        let endpoint =
            |i| Endpoint::new(SocketAddr::from(([10, 0, 0, i], 80)).into(), Instant::now());
        (0..n).map(|i| Arc::new(endpoint(i))).collect()
    }

    fn set_of(positions: &[Position]) -> EndpointSet {
        let members = endpoints(u8::try_from(positions.len()).unwrap());
        EndpointSet::new(iter::zip(positions.iter().copied(), members))
    }

    fn hosts(candidates: Candidates<'_>) -> Vec<String> {
        candidates
            .iter()
            .map(|endpoint| endpoint.addr().ip().to_string())
            .collect()
    }

    #[test]
    fn groups_stand_in_the_order_of_their_positions() {
        use Position::{Ejected, Primary, Rejected, Replica, Unknown};
        let set = set_of(&[Ejected, Replica, Rejected, Primary, Replica, Unknown]);
        assert_eq!(
            hosts(set.available()),
            ["10.0.0.3", "10.0.0.1", "10.0.0.4", "10.0.0.5"]
        );
        assert_eq!(hosts(set.available().primaries()), ["10.0.0.3"]);
        assert_eq!(hosts(set.available().replicas()), ["10.0.0.1", "10.0.0.4"]);
        assert_eq!(
            set.positions().last().map(|(position, _)| position),
            Some(Rejected)
        );
        assert_eq!(set.len(), 6);
    }

    #[test]
    fn ejected_endpoints_are_candidates_only_when_nothing_else_is_left_and_rejected_never() {
        use Position::{Ejected, Rejected};
        let set = set_of(&[Ejected, Rejected, Ejected]);
        assert_eq!(hosts(set.available()), ["10.0.0.0", "10.0.0.2"]);
        assert!(set_of(&[Rejected]).available().is_empty());
    }

    #[test]
    fn excluded_candidates_cannot_be_chosen_and_the_rest_keep_their_order() {
        let set = set_of(&[Position::Unknown; 6]);
        let rest = set.available().excluding(&[0, 2, 3, 5]);
        assert_eq!(hosts(rest), ["10.0.0.1", "10.0.0.4"]);
        assert_eq!(rest.len(), 2);
        assert!(rest.choose(2).is_none());
        assert!(
            set.available()
                .excluding(&[0, 1, 2, 3, 4, 5])
                .choose(0)
                .is_none()
        );
    }

    #[test]
    fn excluding_works_inside_a_group_too() {
        use Position::{Primary, Replica};
        let set = set_of(&[Primary, Replica, Replica, Replica]);
        let replicas = set.available().excluding(&[0, 2]).replicas();
        assert_eq!(hosts(replicas), ["10.0.0.1", "10.0.0.3"]);
        assert!(set.available().excluding(&[0]).primaries().is_empty());
    }

    #[test]
    fn a_choice_beyond_the_end_is_none() {
        let set = set_of(&[Position::Unknown; 3]);
        assert!(set.available().choose(3).is_none());
        assert!(set_of(&[]).available().choose(0).is_none());
        assert!(set.available().replicas().choose(0).is_none());
    }
}
