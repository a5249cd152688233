//! What an answer does to the set: adds at once, removes with care, and by doubt never.

use std::{iter, mem, sync::Arc};

use tokio::time::Instant;

use super::{
    NewService, Registry,
    cadence::Difference,
    lifecycle::Fate,
    slot::{Presence, Slot},
    status::{Answer, Last},
};
use crate::{
    draw::mix,
    endpoint::{Address, Endpoint, rank},
    resolve::{Resolution, ResolveError},
};

/// So many whole answers in a row must lack an endpoint to remove it ...
const REMOVAL_ANSWERS: u8 = 1;
/// ... and so many if more than half of the set would go at once: more likely a lagging DNS replica
/// than a rollout.
const LARGE_REMOVAL_ANSWERS: u8 = 2;

/// So many new endpoints are put between the others one by one, most of a rollout's answers: sorting looks at all.
const FEW: usize = 4;

/// A sum over the addresses, names and weights of an answer: the same for every order.
///
/// Answers come shuffled, and comparing sums is ten times cheaper than sorting. Two different answers
/// of equal length agree by chance once in 2^64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    sum: u64,
    count: usize,
}

impl Fingerprint {
    fn of(addresses: &[Address], ranks: &[u64]) -> Self {
        let sum = iter::zip(addresses, ranks).fold(0_u64, |sum, (address, &rank)| {
            let name = address.name().unwrap_or("").bytes();
            let hash = name.fold(rank, |hash, byte| mix(hash ^ u64::from(byte)));
            sum.wrapping_add(match address.weight() {
                None => hash,
                Some(weight) => mix(hash ^ u64::from(weight) << 8),
            })
        });
        Self {
            sum,
            count: addresses.len(),
        }
    }
}

impl<N: NewService> Registry<N> {
    pub(super) fn on_records(&mut self, now: Instant, resolution: &Resolution) {
        let (addresses, whole) = (resolution.addresses(), !resolution.is_partial());
        let seed = self.config.order_seed;
        let ranks: Vec<u64> = addresses
            .iter()
            .map(|address| rank(address.socket(), seed))
            .collect();
        let fingerprint = Fingerprint::of(addresses, &ranks);
        let difference = if whole && self.settled == Some(fingerprint) {
            Difference::None
        } else {
            self.unsettle();
            let listed = in_order(addresses, &ranks);
            let (difference, pending) = self.merge(now, listed, whole, true);
            self.settled = (whole && !pending).then_some(fingerprint);
            difference
        };
        self.note(now, Ok(Answer::of(resolution)));
        self.status.incomplete = !whole;
        self.status.resolved |= whole || !addresses.is_empty();
        if whole {
            self.emptiness.reset();
            self.status.last_good = Some(now);
            self.status.stale_since = None;
        }
        self.cadence
            .on_records(now, &self.config, resolution.ttl(), difference);
    }

    /// Of the endpoints that are known, others are to be in the set: these, and no more.
    ///
    /// That is no answer: it confirms nothing, moves no schedule, and removes at once, for nobody doubts that
    /// those who leave are there.
    pub(crate) fn on_narrowed(&mut self, now: Instant, addresses: &[Address]) {
        let seed = self.config.order_seed;
        let rank = |address: &Address| rank(address.socket(), seed);
        let ranks: Vec<u64> = addresses.iter().map(rank).collect();
        let fingerprint = Fingerprint::of(addresses, &ranks);
        if self.settled == Some(fingerprint) {
            return;
        }
        self.unsettle();
        let (_, pending) = self.merge(now, in_order(addresses, &ranks), true, false);
        if pending {
            self.remove(now, |slot| slot.misses > 0);
            self.update(now);
        }
        let is_settled = self.status.last_good.is_some() && !self.status.incomplete;
        self.settled = is_settled.then_some(fingerprint);
    }

    pub(super) fn on_empty(&mut self, now: Instant, error: ResolveError) {
        let negative_ttl = error.negative_ttl();
        // One that is held is not what emptiness could take away.
        let live = |slot: &&Slot<_>| slot.presence == Presence::Live;
        let mut live = self.slots.iter().filter(live).peekable();
        let held = live.peek().is_some() && {
            let all_ejected = live.all(|slot| slot.connectivity.is_ejected());
            !self
                .emptiness
                .confirm(now, negative_ttl, self.config.empty, all_ejected)
        };
        self.note(now, Err(error));
        self.status.resolved = true;
        if held {
            self.status.stale_since.get_or_insert(now);
        } else {
            self.unsettle();
            self.emptiness.reset();
            self.status.stale_since = None;
            self.status.incomplete = false;
            self.remove(now, |_| true);
            self.update(now);
        }
        self.cadence.on_empty(now, &self.config, negative_ttl, held);
    }

    pub(super) fn on_failure(&mut self, now: Instant, error: ResolveError) {
        self.note(now, Err(error));
        self.status.stale_since.get_or_insert(now);
        self.cadence.on_failure(now, &self.config);
    }

    /// Drops endpoints that no answer confirmed for too long.
    pub(super) fn drop_stale(&mut self, now: Instant) {
        if self.stale_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        self.unsettle();
        let (limit, incomplete) = (self.config.max_stale, self.status.incomplete);
        self.remove(now, |slot| {
            slot.stale_at(limit, incomplete)
                .is_some_and(|deadline| deadline <= now)
        });
    }

    pub(super) fn stale_deadline(&self) -> Option<Instant> {
        let (limit, incomplete) = (self.config.max_stale, self.status.incomplete);
        if self.settled.is_some() {
            return Some(self.status.last_good? + limit?);
        }
        if limit.is_none() && !incomplete {
            return None;
        }
        let listed = self.slots.iter().filter(|slot| slot.is_listed());
        listed
            .filter_map(|slot| slot.stale_at(limit, incomplete))
            .min()
    }

    /// Takes addresses in order into the slots. Only a whole list removes, and only one that is an answer confirms.
    /// Also tells whether an endpoint stays that the list lacks.
    fn merge(
        &mut self,
        now: Instant,
        listed: Vec<(u64, &Address)>,
        whole: bool,
        confirms: bool,
    ) -> (Difference, bool) {
        let known_before = self.status.endpoints + self.status.warming;
        let (mut fresh, mut added, mut missing, mut place) = (Vec::new(), 0, 0, 0);
        for (rank, address) in listed {
            // Whoever is stepped over is not listed.
            while let Some(slot) = self.slots.get_mut(place).filter(|slot| slot.rank < rank) {
                missing += usize::from(slot.is_missing(whole));
                place += 1;
            }
            match self.slots.get_mut(place).filter(|slot| slot.rank == rank) {
                None => {
                    added += 1;
                    fresh.push(self.new_slot(now, rank, address));
                    continue;
                }
                Some(slot) if slot.is_renamed_by(address) => {
                    // The address went to another pod: what is known of the old one says nothing.
                    added += 1;
                    let successor = self.new_slot(now, rank, address);
                    let old = mem::replace(&mut self.slots[place], successor);
                    self.replaced(now, old);
                }
                Some(slot) => {
                    if confirms {
                        slot.seen = now;
                    }
                    slot.misses = 0;
                    if let Some(name) = address.name() {
                        // Policies go by names, too, and look at the set when it is published.
                        self.dirty |= slot.endpoint.set_name(name);
                    }
                    if slot.weight != address.weight() {
                        slot.weight = address.weight();
                        slot.endpoint.set_weight(slot.weight);
                        // Policies weigh the set anew when it is published.
                        self.dirty = true;
                    }
                    if slot.presence == Presence::Held {
                        slot.presence = Presence::Live;
                        self.relisted = true;
                    } else if !slot.is_listed() {
                        slot.presence = Presence::Live;
                        let back = Arc::clone(&slot.endpoint);
                        self.fates.push((Fate::Returned, slot.service.clone()));
                        added += 1;
                        self.came(back);
                    }
                }
            }
            place += 1;
        }
        for slot in &mut self.slots[place..] {
            missing += usize::from(slot.is_missing(whole));
        }
        self.insert(fresh);

        let large = missing * 2 > known_before;
        let needed = if large {
            LARGE_REMOVAL_ANSWERS
        } else {
            REMOVAL_ANSWERS
        };
        if missing > 0 {
            self.remove(now, |slot| slot.misses >= needed);
        }
        self.update(now);
        let difference = match added + missing {
            0 => Difference::None,
            changed if changed * 5 >= known_before => Difference::Large,
            _ => Difference::Small,
        };
        (difference, missing > 0 && needed > REMOVAL_ANSWERS)
    }

    /// Puts new slots where their ranks say.
    fn insert(&mut self, fresh: Vec<Slot<N::Service>>) {
        if fresh.len() > FEW {
            self.slots.extend(fresh);
            // Two sorted runs: a merge.
            self.slots.sort_by_key(|slot| slot.rank);
            return;
        }
        for slot in fresh {
            let place = self.slots.partition_point(|known| known.rank < slot.rank);
            self.slots.insert(place, slot);
        }
    }

    fn new_slot(&mut self, now: Instant, rank: u64, address: &Address) -> Slot<N::Service> {
        let endpoint = Arc::new(Endpoint::among(
            address.clone(),
            now,
            Arc::clone(&self.baseline),
        ));
        let (service, presence) = self.enter(now, &endpoint);
        if presence == Presence::Live {
            self.came(Arc::clone(&endpoint));
        }
        Slot::new(now, rank, endpoint, service, presence)
    }

    /// Takes the endpoints that `gone` names out of the set; they linger. Those that wait to be in it
    /// leave for good.
    fn remove(&mut self, now: Instant, gone: impl Fn(&Slot<N::Service>) -> bool) {
        self.stop_warming(&gone);
        let accepted = self.accepted();
        let listed = |slot: &&mut Slot<_>| slot.presence == Presence::Live;
        for slot in self
            .slots
            .iter_mut()
            .filter(listed)
            .filter(|slot| gone(slot))
        {
            slot.misses = 0;
            self.relisted = true;
            if accepted == Some(slot.id) {
                slot.presence = Presence::Held;
                continue;
            }
            slot.presence = Presence::Absent { since: now };
            self.fates.push((Fate::Removed, slot.service.clone()));
            self.removed.push(Arc::clone(&slot.endpoint));
            self.status.removed += 1;
            self.dirty = true;
        }
    }

    /// An endpoint whose address another pod has now.
    fn replaced(&mut self, now: Instant, old: Slot<N::Service>) {
        if old.is_live() {
            self.relisted = true;
            self.fates.push((Fate::Removed, old.service.clone()));
            self.removed.push(Arc::clone(&old.endpoint));
            self.status.removed += 1;
            self.dirty = true;
        }
        self.draining.push(old.drained(now, self.config.linger));
    }

    fn came(&mut self, endpoint: Arc<Endpoint>) {
        self.added.push(endpoint);
        self.status.added += 1;
        self.dirty = true;
        self.relisted = true;
    }

    /// While settled, one time stands for all slots; this writes it into each.
    fn unsettle(&mut self) {
        let Some((_, seen)) = self.settled.take().zip(self.status.last_good) else {
            return;
        };
        self.slots
            .iter_mut()
            .filter(|slot| slot.is_listed())
            .for_each(|slot| slot.seen = seen);
    }

    fn note(&mut self, now: Instant, result: Result<Answer, ResolveError>) {
        let before = self.status.ttl();
        self.status.last = Some(Last { at: now, result });
        match (before, self.status.ttl()) {
            (Some(before), Some(ttl)) if ttl < before => self.status.ttl_counts_down = true,
            (Some(before), Some(ttl)) if ttl == before => self.status.ttl_counts_down = false,
            _ => {}
        }
    }
}

/// The addresses by rank, each once.
///
/// Equal ranks are one address: always for IPv4, whose rank is one to one, and but for one chance in
/// 2^64 for a pair of IPv6 addresses.
fn in_order<'a>(addresses: &'a [Address], ranks: &[u64]) -> Vec<(u64, &'a Address)> {
    // Ranks are spread evenly, so their top bits tell nearly where each belongs: counting those first
    // leaves next to nothing to sort (a quarter of the time that sorting all takes).
    let bits = addresses
        .len()
        .next_power_of_two()
        .trailing_zeros()
        .clamp(1, 16);
    let bucket = |rank: u64| (rank >> (64 - bits)) as usize;
    let mut ends = vec![0_u32; 1 << bits];
    ranks.iter().for_each(|&rank| ends[bucket(rank)] += 1);
    ends.iter_mut().fold(0, |sum, end| {
        *end += sum;
        *end
    });
    let Some(first) = addresses.first() else {
        return Vec::new();
    };
    let mut listed = vec![(0, first); addresses.len()];
    for (&rank, address) in iter::zip(ranks, addresses) {
        let end = &mut ends[bucket(rank)];
        *end -= 1;
        listed[*end as usize] = (rank, address);
    }
    for i in 1..listed.len() {
        let mut place = i;
        while place > 0 && listed[place - 1].0 > listed[place].0 {
            listed.swap(place - 1, place);
            place -= 1;
        }
    }
    listed.dedup_by(|(rank, address), (other, kept)| {
        let again = rank == other;
        if again && preference(address) < preference(kept) {
            *kept = *address;
        }
        again
    });
    listed
}

/// Of two listings of one address: a name is better than none, and one better than the other, so that
/// the order of an answer means nothing.
fn preference(address: &Address) -> impl Ord {
    let rest = (address.label(), address.weight());
    (address.name().is_none(), address.name(), rest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Resolution;
    use crate::{
        endpoint::Address,
        policy::{Maglev, Policy},
        registry::{
            Config,
            by_hand::{ByHand, addr},
        },
    };

    #[test]
    fn narrowing_removes_most_of_a_set_at_once_and_is_no_answer() {
        let mut pods = ByHand::new(Config::default(), false);
        pods.answer(1..=20);
        let (before, due) = (
            pods.registry.status().clone(),
            pods.registry.next_deadline(),
        );
        pods.narrowed(3..=5);
        assert_eq!(pods.hosts(), [3, 4, 5]);
        let after = pods.registry.status();
        assert_eq!(after.answers(), before.answers());
        assert_eq!(after.last_good(), before.last_good());
        assert_eq!(pods.registry.next_deadline(), due, "it asks no sooner");
        let generation = pods.set.generation();
        pods.narrowed([5, 4, 3]);
        assert_eq!(
            pods.set.generation(),
            generation,
            "the same again is no news"
        );
        pods.narrowed(3..=6);
        assert_eq!(pods.hosts(), [3, 4, 5, 6], "what is known may join");
    }

    #[test]
    fn narrowing_confirms_nothing_while_answers_are_incomplete() {
        let config = Config {
            max_stale: Some(Duration::from_secs(60)),
            ..Config::default()
        };
        let mut pods = ByHand::new(config, false);
        pods.answer(1..=4);
        let start = pods.now;
        let known = |pods: &ByHand| pods.hosts().contains(&3);
        while known(&pods) && pods.now < start + Duration::from_secs(200) {
            pods.wait(Duration::from_secs(9));
            let part = Resolution::new([1, 2].map(addr)).partial();
            pods.registry.on_asked(pods.now);
            pods.registry.on_answer(pods.now, Ok(part));
            pods.refused(3);
            pods.wait(Duration::ZERO);
            if known(&pods) {
                pods.narrowed(1..=3);
            }
        }
        let held = pods.now - start;
        assert_eq!(held, Duration::from_secs(63), "nobody told of it for 60 s");
    }

    #[test]
    fn an_answer_after_narrowing_is_compared_with_what_is_left() {
        let mut pods = ByHand::new(Config::default(), false);
        pods.answer(1..=20);
        pods.narrowed(1..=4);
        let generation = pods.set.generation();
        pods.answer(1..=4);
        assert_eq!(pods.set.generation(), generation);
        pods.answer([1]);
        assert_eq!(
            pods.hosts(),
            [1, 2, 3, 4],
            "three of four: once is not enough"
        );
        pods.answer([1]);
        assert_eq!(pods.hosts(), [1]);
    }

    #[test]
    fn another_weight_is_a_new_set_of_the_same_endpoints_and_the_same_weight_is_none() {
        let mut hand = ByHand::new(Config::default(), true);
        let mut say = |weight| {
            hand.listed((1..=3).map(|host| Address::from(addr(host)).weighted(weight)));
            let weights: Vec<_> = hand.set.iter().map(|endpoint| endpoint.weight()).collect();
            assert_eq!(weights, [Some(weight).filter(|&weight| weight > 0); 3]);
            let ids: Vec<_> = hand.set.iter().map(|endpoint| endpoint.id()).collect();
            (hand.set.generation(), ids)
        };
        let (first, ids) = say(10);
        assert_eq!(say(10), (first, ids.clone()));
        assert_eq!(say(20), (first + 1, ids.clone()));
        assert_eq!(say(20), (first + 1, ids.clone()));
        assert_eq!(say(0), (first + 2, ids));
    }

    #[test]
    fn a_name_that_is_told_later_is_a_new_set_of_the_same_endpoints_and_keys_go_by_it() {
        let bare = || (1..=5).map(|host| Address::from(addr(host)));
        let named = || bare().zip(0..).map(|(pod, i)| pod.named(format!("db-{i}")));
        let homes = |hand: &ByHand, policy: &Maglev| -> Vec<_> {
            let home = |key: u32| policy.pick(hand.set.available().for_key(key)).unwrap();
            (0..200).map(|key| home(key).endpoint().addr()).collect()
        };
        let [mut early, mut late] = [(); 2].map(|()| ByHand::new(Config::default(), true));
        let [of_early, of_late] = [(); 2].map(|()| Maglev::new());
        early.listed(named());
        of_early.prepare(&early.set);
        late.listed(bare());
        of_late.prepare(&late.set);
        assert_ne!(homes(&late, &of_late), homes(&early, &of_early));
        // Its SRV records are there at last. Policies are asked to prepare for a new set alone.
        let first = late.set.generation();
        late.listed(named());
        if late.set.generation() > first {
            of_late.prepare(&late.set);
        }
        assert_eq!(homes(&late, &of_late), homes(&early, &of_early));
        for nothing_new in [named().collect::<Vec<_>>(), bare().collect()] {
            late.listed(nothing_new.into_iter());
            assert_eq!(late.set.generation(), first + 1);
        }
    }
}
