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
    fmt,
    hash::Hash,
    iter,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::time::Instant;

use crate::{
    draw::{Draw, below},
    endpoint::{Address, Baseline, Endpoint},
    key::hash_of,
    probe::Term,
};

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

/// More replicas than any database has that a policy with a bound is used for.
const ON_STACK: usize = 32;

/// What a policy picks from: a view of a set that narrows.
///
/// Copying it is free. Endpoints that this request already tried are not in it.
#[derive(Clone, Copy)]
pub struct Candidates<'a> {
    set: &'a EndpointSet,
    start: usize,
    end: usize,
    /// Indices of the set that are left out: ascending, distinct, all in `start..end`.
    excluded: &'a [usize],
    key: Option<u64>,
    now: Option<Instant>,
}

/// A policy's answer: one endpoint of the candidates it was given.
///
/// Only [`Candidates::choose`] makes one, and its lifetime ties it to that very set, so an answer
/// cannot be out of range or out of date:
///
/// ```compile_fail
/// # use headless_lb::{Candidates, Choice};
/// fn pick<'a>(candidates: Candidates<'a>, yesterday: Choice<'static>) -> Option<Choice<'static>> {
///     candidates.choose(0)
/// }
/// ```
///
/// ```
/// # use headless_lb::{Candidates, Choice};
/// fn pick<'a>(candidates: Candidates<'a>) -> Option<Choice<'a>> {
///     candidates.choose(0)
/// }
/// ```
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    set: &'a EndpointSet,
    index: usize,
}

impl<'a> Candidates<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.end - self.start - self.excluded.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The candidate number `i`, counted from 0; `None` from [`len`](Self::len) on.
    #[inline]
    pub fn get(&self, i: usize) -> Option<&'a Endpoint> {
        Some(self.choose(i)?.endpoint())
    }

    /// Picks the candidate number `i`; `None` from [`len`](Self::len) on.
    #[inline]
    pub fn choose(&self, i: usize) -> Option<Choice<'a>> {
        if i >= self.len() {
            return None;
        }
        Some(Choice {
            set: self.set,
            index: self.index(i),
        })
    }

    /// How many there would be had this request tried none yet.
    #[inline]
    pub(crate) fn span(&self) -> usize {
        self.end - self.start
    }

    /// Whether this request left some out.
    pub(crate) fn is_reduced(&self) -> bool {
        !self.excluded.is_empty()
    }

    /// The candidate at `place`, which is below [`span`](Self::span), or the next one that was not tried.
    #[inline]
    pub(crate) fn choose_from(&self, place: usize) -> Option<Choice<'a>> {
        debug_assert!(place < self.span());
        if self.excluded.is_empty() {
            return Some(Choice {
                set: self.set,
                index: self.start + place,
            });
        }
        let before = self
            .excluded
            .partition_point(|&index| index < self.start + place);
        // So many candidates stand before that place; behind the last comes the first.
        self.choose((place - before).checked_rem(self.len())?)
    }

    /// The candidates in their order: the same for every pick while the set stays.
    pub fn iter(self) -> impl Iterator<Item = &'a Endpoint> {
        (0..self.len()).map(move |i| &*self.set.endpoints[self.index(i)])
    }

    /// Where they are in the set, those included that this request tried.
    #[inline]
    pub(crate) fn range(&self) -> Range<usize> {
        self.start..self.end
    }

    /// Whether the endpoint at this index of the set is one of them.
    #[inline]
    pub(crate) fn has(&self, index: usize) -> bool {
        self.range().contains(&index)
            && (self.excluded.is_empty() || self.excluded.binary_search(&index).is_err())
    }

    /// Picks the one at this index of the set, if it is one of them.
    #[inline]
    pub(crate) fn choose_at(&self, index: usize) -> Option<Choice<'a>> {
        self.has(index).then_some(Choice {
            set: self.set,
            index,
        })
    }

    /// Looks at each candidate once, by its index in the set.
    #[inline]
    pub(crate) fn each_index(self, mut look: impl FnMut(usize)) {
        if self.excluded.is_empty() {
            self.range().for_each(look);
        } else {
            self.range()
                .filter(|&index| self.has(index))
                .for_each(&mut look);
        }
    }

    /// Looks at each candidate once, from number `start` on and around.
    #[inline]
    pub(crate) fn each_from(self, start: usize, look: &mut impl FnMut(usize, &'a Endpoint)) {
        if !self.excluded.is_empty() {
            for i in (start..self.len()).chain(0..start) {
                look(i, &self.set.endpoints[self.index(i)]);
            }
            return;
        }
        let endpoints = &self.set.endpoints[self.start..self.end];
        let (before, from) = endpoints.split_at(start.min(endpoints.len()));
        // Two loops: a chain of both costs half as much again.
        for (i, endpoint) in iter::zip(start.., from) {
            look(i, endpoint);
        }
        for (i, endpoint) in iter::zip(0.., before) {
            look(i, endpoint);
        }
    }

    /// Two different candidates, each pair as likely as any other; one if there is no other.
    #[inline]
    pub(crate) fn choose_two(self, draw: &Draw) -> Option<(Choice<'a>, Option<Choice<'a>>)> {
        let n = self.len();
        let bits = draw.bits();
        let first = below((bits >> 32) as u32, n);
        let one = self.choose(first)?;
        let Some(others) = n.checked_sub(1).filter(|&others| others > 0) else {
            return Some((one, None));
        };
        // Draw from the others, and step over the first: both orders of a pair are equally likely.
        let second = below(bits as u32, others);
        Some((
            one,
            self.choose(if second >= first { second + 1 } else { second }),
        ))
    }

    /// Only the accepted primary: one or none.
    #[must_use]
    #[inline]
    pub fn primaries(self) -> Self {
        self.narrow(self.set.group(Position::Primary))
    }

    /// Only the replicas.
    #[must_use]
    #[inline]
    pub fn replicas(self) -> Self {
        self.narrow(self.set.group(Position::Replica))
    }

    /// These, or if there is none, the others.
    #[must_use]
    #[inline]
    pub fn or(self, others: Self) -> Self {
        if self.is_empty() { others } else { self }
    }

    /// The same candidates for a key, as [`pick_for`](crate::Balancer::pick_for) asks for them.
    ///
    /// ```
    /// use headless_lb::{EndpointSet, Policy, Rendezvous};
    /// use std::net::SocketAddr;
    ///
    /// let set = EndpointSet::of((1..=3).map(|i| SocketAddr::from(([10, 0, 0, i], 80))));
    /// let policy = Rendezvous::new();
    /// let pick = || policy.pick(set.available().for_key("user-7")).map(|choice| choice.endpoint().addr());
    /// assert_eq!(pick(), pick());
    /// ```
    #[must_use]
    pub fn for_key(self, key: impl Hash) -> Self {
        self.with_key(Some(hash_of(key)))
    }

    /// The hash of what the caller gave to [`pick_for`](crate::Balancer::pick_for) or
    /// [`for_key`](crate::Balancer::for_key).
    #[inline]
    pub fn key(&self) -> Option<u64> {
        self.key
    }

    /// The set that these are of.
    #[inline]
    pub fn set(&self) -> &'a EndpointSet {
        self.set
    }

    /// The moment of the pick. The balancer reads the clock before it asks a policy
    /// [about time](crate::Policy::is_timed); for others it is read here.
    #[inline]
    pub fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }

    /// The same candidates at this moment: for tests and simulations, where time is what they say it is.
    #[must_use]
    #[inline]
    pub fn at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    #[inline]
    pub(crate) fn with_now(mut self, now: Option<Instant>) -> Self {
        self.now = now;
        self
    }

    /// Whether some endpoint of the set should not get its full share yet.
    #[inline]
    pub(crate) fn is_careful(&self) -> bool {
        self.set.is_careful
    }

    /// What `policy` picks of these without the one at `index` of the set. Allocates only where others are left
    /// out already.
    pub(crate) fn without(
        self,
        index: usize,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let (one, mut many) = ([index], Vec::new());
        let excluded = if self.excluded.is_empty() {
            &one[..]
        } else {
            many.extend_from_slice(self.excluded);
            let place = many.partition_point(|&other| other < index);
            many.insert(place, index);
            &many
        };
        let rest = Candidates { excluded, ..self };
        if rest.is_empty() {
            return None;
        }
        let index = policy(rest)?;
        Some(Choice {
            set: self.set,
            index,
        })
    }

    #[inline]
    pub(crate) fn with_key(mut self, key: Option<u64>) -> Self {
        self.key = key;
        self
    }

    /// What `policy` picks of those that `fits` holds for.
    ///
    /// Asks it first and looks at what it picked: while all fit, that is one look. Allocates only where
    /// some do not fit among more than `ON_STACK`.
    pub(crate) fn fitting(
        self,
        fits: impl Fn(&Endpoint) -> bool,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let of = |index| Choice {
            set: self.set,
            index,
        };
        let picked = policy(self).map(of)?;
        if fits(picked.endpoint()) {
            return Some(picked);
        }
        let unfit = |index: &usize| !fits(&self.set.endpoints[*index]);
        let out = (self.start..self.end)
            .filter(|index| self.excluded.binary_search(index).is_ok() || unfit(index));
        let (mut few, mut many) = ([0; ON_STACK], Vec::new());
        let excluded = if self.span() <= ON_STACK {
            let count = iter::zip(&mut few, out)
                .map(|(to, index)| *to = index)
                .count();
            &few[..count]
        } else {
            many.extend(out);
            &many
        };
        let rest = Candidates { excluded, ..self };
        if rest.is_empty() {
            return None;
        }
        policy(rest).map(of)
    }

    /// What `policy` picks of those that are in `part` too; nothing if there is none. Allocates only where this request left some out.
    pub(crate) fn within(
        self,
        part: &Part,
        policy: impl Fn(Candidates<'_>) -> Option<usize>,
    ) -> Option<Choice<'a>> {
        let place = |index| part.places.partition_point(|&place| place < index);
        let excluded: Vec<usize> = self
            .excluded
            .iter()
            .filter_map(|index| part.places.binary_search(index).ok())
            .collect();
        let some = Candidates {
            set: &part.set,
            start: place(self.start),
            end: place(self.end),
            excluded: &excluded,
            key: self.key,
            now: self.now,
        };
        if some.is_empty() {
            return None;
        }
        let index = *part.places.get(policy(some)?)?;
        Some(Choice {
            set: self.set,
            index,
        })
    }

    /// Leaves out the endpoints at `excluded`: indices of the set, ascending and distinct.
    ///
    /// A balancer does this for its retries; this is for a simulation that stands in for the balancer.
    #[doc(hidden)]
    #[must_use]
    pub fn excluding(mut self, excluded: &'a [usize]) -> Self {
        self.excluded = excluded;
        self.narrow(self.start..self.end)
    }

    #[inline]
    fn narrow(mut self, range: Range<usize>) -> Self {
        self.start = self.start.max(range.start);
        self.end = self.end.min(range.end).max(self.start);
        if !self.excluded.is_empty() {
            let first = self.excluded.partition_point(|&index| index < self.start);
            let last = self.excluded.partition_point(|&index| index < self.end);
            self.excluded = &self.excluded[first..last];
        }
        self
    }

    /// The index in the set of candidate `i`.
    #[inline]
    fn index(&self, i: usize) -> usize {
        self.start
            + if self.excluded.is_empty() {
                i
            } else {
                self.stepped_over(i)
            }
    }

    /// `i` and the number of those left out before candidate `i`. The k-th excluded index is
    /// `excluded[k] - k` candidates in, so a binary search tells.
    #[cold]
    fn stepped_over(&self, i: usize) -> usize {
        let (mut low, mut high) = (0, self.excluded.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if self.excluded[middle] - self.start - middle <= i {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        i + low
    }
}

impl<'a> Choice<'a> {
    /// The endpoint that was chosen.
    #[inline]
    pub fn endpoint(&self) -> &'a Endpoint {
        &self.set.endpoints[self.index]
    }

    /// The place of the endpoint in its set: the index of its service in a
    /// [`Snapshot`](crate::registry::Snapshot), and of what else is kept beside a set.
    #[inline]
    pub fn index(&self) -> usize {
        self.index
    }
}

impl fmt::Debug for Candidates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Choice").field(self.endpoint()).finish()
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
