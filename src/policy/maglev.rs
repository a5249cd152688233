//! The endpoint that a table has for a key.

use std::{iter, sync::Arc};

use super::{Policy, Rendezvous, bound::Bound, tables::Tables};
use crate::{
    draw::mix,
    set::{Candidates, Choice, EndpointSet},
};

/// The endpoint that a table has for the key: what [`Rendezvous`] does, for hundreds of endpoints.
///
/// Every endpoint takes slots of a table in an order of its own, all in turn, until the table is full; a key
/// picks a slot ("Maglev", Eisenbud et al., NSDI 2016). Shares differ by one slot: by 0.2 % with 100 endpoints, 1.5 % with 1,000. Clients
/// that see the same endpoints have the same table; an endpoint that is set aside changes none, and its keys alone go to the next
/// slots.
///
/// When one leaves or joins, more keys move than must: 1.3 times as many with 64 endpoints, 1.6 with 100, 2.5 with 200, 6 with 650 and
/// never more than 8 (measured): 0.7 % of all keys with 1,000 endpoints instead of 0.1 %. Where that is dear, rather take `Rendezvous`.
///
/// Keys, identities and the case without a key are as they are there. The table has 65,537 slots (128 KiB), and is computed by the driver
/// when endpoints come or go, which takes 1 ms. Use one policy for each
/// service: it holds the tables of the newest sets alone, and picks as `Rendezvous` does from others.
///
/// ```
/// use headless_lb::{Balancer, Fixed, Maglev};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pods = (0..200).map(|i| SocketAddr::from(([127, 0, 1, i], 6379)));
/// let cache = Balancer::builder(Fixed::new(pods)).policy(Maglev::new()).spawn();
/// cache.resolved().await?;
/// assert_eq!(cache.pick_for("cart-7")?.addr(), cache.pick_for("cart-7")?.addr());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Maglev {
    bound: Bound,
    tables: Tables<Table>,
    /// Where there is no table, and no key, and where the key's slots have no candidate or full ones alone.
    otherwise: Rendezvous,
}

/// The paper's size, a prime. Its larger one, 655,373, does not stay in a core's cache and takes 16 ms to fill, to move 4 times as many keys
/// as must instead of 7 with 1,000 endpoints. And where one size gave way to the other, one endpoint more would move all keys.
const SLOTS: usize = 65_537;

/// A key goes through so many slots for each endpoint at most: one candidate in a thousand is found within
/// eight thousand slots but for 3 keys in 10,000.
const REACH: usize = 8;

impl Maglev {
    /// Without a bound. Picks without a key draw from a generator of the calling thread.
    pub fn new() -> Self {
        Self::or(Rendezvous::new())
    }

    /// For tests and simulations: picks without a key draw a sequence that `seed` decides.
    pub fn seeded(seed: u64) -> Self {
        Self::or(Rendezvous::seeded(seed))
    }

    fn or(otherwise: Rendezvous) -> Self {
        Self {
            bound: Bound::NONE,
            tables: Tables::default(),
            otherwise,
        }
    }

    /// No endpoint gets a request while it has `times` the mean in flight, and at least four: see
    /// [`Rendezvous::bounded`]. Default: no bound.
    #[must_use]
    pub fn bounded(mut self, times: f32) -> Self {
        self.bound = Bound::new(times);
        self.otherwise = self.otherwise.bounded(times);
        self
    }

    /// The first endpoint of the key's slots that is a candidate and not full.
    fn look_up<'a>(
        &self,
        table: &Table,
        candidates: Candidates<'a>,
        key: u64,
    ) -> Option<Choice<'a>> {
        let full = self.bound.of(candidates);
        let fits = |choice: &Choice<'_>| full.is_none_or(|full| choice.endpoint().pending() < full);
        let home = candidates.choose_at(table.home(key)?);
        if let Some(home) = home.filter(fits) {
            return Some(home);
        }
        Self::look_around(table, candidates, key, fits)
    }

    /// The same, where the key's own slot will not do.
    #[cold]
    fn look_around<'a>(
        table: &Table,
        candidates: Candidates<'a>,
        key: u64,
        fits: impl Fn(&Choice<'_>) -> bool,
    ) -> Option<Choice<'a>> {
        table.members_from(key).find_map(|member| {
            let choice = candidates.choose_at(table.place(member));
            let choice = choice.or_else(|| table.twin(member, candidates));
            choice.filter(&fits)
        })
    }
}

impl Policy for Maglev {
    fn pick<'a>(&self, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let found = candidates.key().and_then(|key| {
            self.tables.with(candidates.set(), |table| {
                self.look_up(table?, candidates, key)
            })
        });
        found.or_else(|| self.otherwise.pick(candidates))
    }

    fn is_sticky(&self) -> bool {
        true
    }

    fn prepare(&self, set: &EndpointSet) -> bool {
        // Slots have 16 bits. No DNS answer holds as many.
        if set.len() < usize::from(u16::MAX) {
            self.tables.add(set, |others| Table::of(set, others));
        }
        true
    }
}

impl Default for Maglev {
    fn default() -> Self {
        Self::new()
    }
}

/// Which member has which slot, and where in the set the members are.
#[derive(Debug)]
struct Table {
    /// Ascending identities: the same members in every process, whatever the order of its set.
    members: Box<[u64]>,
    /// Shared by all sets of these members: roles and ejections move places only.
    slots: Arc<[u16]>,
    places: Box<[u32]>,
    /// Further addresses of a pod, by member: picked where its lowest is no candidate.
    twins: Box<[(u16, u32)]>,
}

impl Table {
    fn of(set: &EndpointSet, others: &[(u64, Arc<Self>)]) -> Self {
        let mut found: Vec<_> = iter::zip(0_u32.., set)
            .map(|(place, endpoint)| (endpoint.identity(), endpoint.addr(), place))
            .collect();
        found.sort_unstable();
        let (mut members, mut places, mut twins) = (Vec::new(), Vec::new(), Vec::new());
        for (identity, _, place) in found {
            // One pod under two addresses is one member.
            if members.last() == Some(&identity) {
                twins.push((members.len() as u16 - 1, place));
            } else {
                members.push(identity);
                places.push(place);
            }
        }
        let members: Box<[u64]> = members.into();
        let same = others.iter().find(|(_, other)| other.members == members);
        let slots = same.map_or_else(|| fill(&members), |(_, other)| Arc::clone(&other.slots));
        Self {
            members,
            slots,
            places: places.into(),
            twins: twins.into(),
        }
    }

    /// The lowest other address of a member that is a candidate.
    #[cold]
    fn twin<'a>(&self, member: u16, candidates: Candidates<'a>) -> Option<Choice<'a>> {
        let first = self.twins.partition_point(|(of, _)| *of < member);
        let twins = self.twins[first..].iter();
        twins
            .take_while(|(of, _)| *of == member)
            .find_map(|(_, place)| candidates.choose_at(*place as usize))
    }

    /// The place of a member at its lowest address.
    #[inline]
    fn place(&self, member: u16) -> usize {
        self.places[usize::from(member)] as usize
    }

    /// The key's slot.
    #[inline]
    fn slot(&self, key: u64) -> usize {
        // Multiply and shift: the key's upper bits are as good as the rest, and a division costs as much as the pick.
        ((u128::from(key) * self.slots.len() as u128) >> 64) as usize
    }

    /// The place of the member in the key's slot.
    #[inline]
    fn home(&self, key: u64) -> Option<usize> {
        Some(self.place(*self.slots.get(self.slot(key))?))
    }

    /// The members in the key's slot and those that follow.
    fn members_from(&self, key: u64) -> impl Iterator<Item = u16> {
        let first = self.slot(key);
        let slots = self.slots[first..].iter().chain(&self.slots[..first]);
        let reach = self.members.len() * REACH;
        slots.take(reach).copied()
    }
}

/// In turn, each member takes the next free slot of its own walk through all of them: from `offset` in
/// steps of `skip`, which visit every slot, for their number is prime.
fn fill(members: &[u64]) -> Arc<[u16]> {
    const FREE: u16 = u16::MAX;
    if members.is_empty() {
        return Arc::default();
    }
    let mut slots = vec![FREE; SLOTS];
    let mut walks: Vec<(usize, usize)> = members
        .iter()
        .map(|&identity| {
            let (offset, skip) = (mix(identity), mix(!identity));
            let offset = (offset % SLOTS as u64) as usize;
            (offset, (skip % (SLOTS as u64 - 1)) as usize + 1)
        })
        .collect();
    let mut free = SLOTS;
    loop {
        for (member, (at, skip)) in iter::zip(0.., &mut walks) {
            let mut step = || {
                let slot = *at;
                *at += *skip;
                *at -= if *at >= SLOTS { SLOTS } else { 0 };
                slot
            };
            let mut slot = step();
            while slots[slot] != FREE {
                slot = step();
            }
            slots[slot] = member;
            free -= 1;
            if free == 0 {
                return slots.into();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::{
        policy::tests::set_of,
        set::Position::{Ejected, Replica, Unknown},
    };

    #[test]
    fn another_try_goes_to_the_next_slots_and_those_of_one_endpoint_scatter() {
        let (policy, set) = (Maglev::new(), set_of(12));
        policy.prepare(&set);
        let mut heirs = BTreeSet::new();
        for key in 0..2_000_u64 {
            let all = set.available().for_key(key);
            let first = policy.pick(all).unwrap().index();
            let tried = [first];
            let second = policy.pick(all.excluding(&tried)).unwrap().index();
            assert_ne!(first, second);
            if first == 3 {
                heirs.insert(second);
            }
        }
        assert_eq!(heirs.len(), 11);
    }

    #[test]
    fn a_change_of_roles_moves_only_those_that_cannot_stay() {
        let (policy, all) = (Maglev::new(), set_of(20));
        let members = iter::zip(0.., &all);
        let roles = EndpointSet::new(members.map(|(i, endpoint)| {
            let position = if i % 2 == 0 { Replica } else { Unknown };
            (position, Arc::clone(endpoint))
        }));
        policy.prepare(&all);
        policy.prepare(&roles);
        let slots = |set| {
            let slots = |table: Option<&Table>| Arc::clone(&table.unwrap().slots);
            policy.tables.with(set, slots)
        };
        assert!(Arc::ptr_eq(&slots(&all), &slots(&roles)), "computed again");
        for key in 0..1_000_u64 {
            let pick = |some: Candidates<'_>| policy.pick(some).unwrap().endpoint().id();
            let before = pick(all.available().for_key(key));
            assert_eq!(pick(roles.available().for_key(key)), before);
            let replicas = roles.available().replicas().for_key(key);
            let is_replica = replicas.iter().any(|endpoint| endpoint.id() == before);
            assert_eq!(pick(replicas) == before, is_replica);
        }
    }

    #[test]
    fn members_differ_by_one_slot_at_most() {
        for n in [1, 20, 655, 1_000, 5_000] {
            let members: Vec<u64> = (0..n).map(mix).collect();
            let slots = fill(&members);
            assert_eq!(slots.len(), SLOTS);
            let mut shares = vec![0_usize; members.len()];
            slots
                .iter()
                .for_each(|&member| shares[usize::from(member)] += 1);
            let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
            assert!(most - least <= 1, "{n}: {least} to {most}");
        }
    }

    #[test]
    fn the_only_candidate_of_many_is_found_whatever_the_key() {
        let (policy, set) = (Maglev::new(), set_of(200));
        policy.prepare(&set);
        let others: Vec<usize> = (0..200).filter(|&index| index != 7).collect();
        for key in 0..500_u64 {
            let rest = set.available().for_key(key).excluding(&others);
            assert_eq!(policy.pick(rest).unwrap().index(), 7);
        }
    }

    #[test]
    fn an_endpoint_that_is_not_full_is_found_wherever_its_slots_are() {
        let addr = |i| std::net::SocketAddr::from(([10, 0, 1, i], 80));
        let (policy, set) = (
            Maglev::new().bounded(1.25),
            EndpointSet::of((0..4).map(addr)),
        );
        policy.prepare(&set);
        for idle in 0..4 {
            // 1.25 * (60 + 1) / 4 = 19.1: three have twenty and are full, the last is idle.
            let others = iter::zip(0.., &set).filter(|(i, _)| *i != idle);
            let _requests: Vec<_> = others
                .flat_map(|(_, endpoint)| (0..20).map(|_| endpoint.begin()))
                .collect();
            // One key for each slot.
            let keys = (0..SLOTS as u64).map(|slot| (slot + 1) * (u64::MAX / SLOTS as u64));
            let picks = keys.map(|key| policy.pick(set.available().with_key(Some(key))));
            let full = picks.filter(|pick| pick.unwrap().index() != idle).count();
            assert_eq!(full, 0, "keys that go to a full one while {idle} is idle");
        }
    }

    #[test]
    fn keys_of_a_pod_whose_lower_address_is_set_aside_stay_with_the_pod() {
        let pod = |ip: String, i: usize| {
            let addr: std::net::SocketAddr = format!("{ip}:80").parse().unwrap();
            crate::endpoint::Address::from(addr).named(format!("cache-{i}"))
        };
        let v4 = (0..10).map(|i| pod(format!("10.0.0.{i}"), i));
        let v6 = (0..10).map(|i| pod(format!("[fd00::{i}]"), i));
        let all = EndpointSet::of(v4.chain(v6));
        // But for one pod, nobody answers at the IPv4 addresses.
        let set = EndpointSet::new(iter::zip(0.., &all).map(|(i, endpoint)| {
            let is_aside = (1..10).contains(&i);
            let position = if is_aside { Ejected } else { Unknown };
            (position, Arc::clone(endpoint))
        }));
        let (maglev, rendezvous) = (Maglev::new(), Rendezvous::new());
        for policy in [&maglev as &dyn Policy, &rendezvous] {
            policy.prepare(&all);
            policy.prepare(&set);
            let mut seen = BTreeMap::new();
            for key in 0..1_000_u64 {
                let name = |set: &EndpointSet| {
                    let choice = policy.pick(set.available().for_key(key)).unwrap();
                    choice.endpoint().name().unwrap().to_owned()
                };
                *seen.entry(name(&set)).or_insert(0) += 1;
            }
            assert_eq!(seen.len(), 10, "{seen:?}");
        }
    }
}
