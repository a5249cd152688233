//! What probes saw, on its way to the tracker of the primary, and what follows for the set.

use std::{mem, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    NewService, Registry,
    lifecycle::Fate,
    slot::{Presence, Slot},
};
use crate::{
    hint::Hint,
    primary::{self, Event, Pace, Probes, Report, Tracker},
    probe::{Observation, ProbeError},
    set::{Position, Reign},
};

/// The tracker of a service with a probe.
pub(super) struct Roles {
    tracker: Tracker,
    /// As it was last noted.
    reign: Reign,
}

impl Roles {
    pub(super) fn new(config: &super::Config, interval: Duration) -> Self {
        let tracker = Tracker::new(primary::Config {
            linger: config.linger,
            on_conflict: config.on_conflict,
            ..primary::Config::of(interval, config.probe_timeout)
        });
        Self {
            tracker,
            reign: Reign::default(),
        }
    }

    pub(super) fn position(&self, id: u64) -> Position {
        self.tracker.standing(id)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tracker.deadline()
    }

    pub(super) fn reign(&self) -> Reign {
        let primary::Reign {
            generation,
            epoch,
            term,
            ..
        } = self.tracker.reign();
        Reign {
            generation,
            epoch,
            term,
        }
    }

    /// How many endpoints were not heard of yet.
    pub(super) fn unobserved(&self) -> usize {
        self.tracker.unheard()
    }
}

impl<N: NewService> Registry<N> {
    /// A probe saw something of the endpoint with this id, or failed to.
    pub fn on_observed(&mut self, now: Instant, id: u64, result: Result<Observation, ProbeError>) {
        self.on_all_observed(now, [(id, result)]);
    }

    /// Several did, all by now, in this order.
    ///
    /// Who is the primary comes to the same as with [`on_observed`](Self::on_observed) for each. What follows for the set
    /// is found once: a look at all endpoints, where that takes one for each that says something new.
    pub fn on_all_observed(
        &mut self,
        now: Instant,
        seen: impl IntoIterator<Item = (u64, Result<Observation, ProbeError>)>,
    ) {
        self.with_tracker(now, |tracker| {
            for (id, result) in seen {
                tracker.observed(now, id, result);
            }
        });
    }

    /// An error of the application's own driver hints at something: of this endpoint, on a connection
    /// that was made in this epoch.
    pub(crate) fn on_hint(&mut self, now: Instant, from: Option<(u64, u64)>, hint: Hint) {
        let (id, epoch) = from.unzip();
        self.with_tracker(now, |tracker| tracker.hinted(now, id, epoch, hint));
    }

    /// An operator says that lower terms are right from now on: the data were restored from a backup.
    pub(crate) fn forget_term(&mut self, now: Instant) {
        self.with_tracker(now, |tracker| tracker.forget_term(now));
    }

    /// When the accepted primary was last proved to be it.
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.roles.as_ref()?.tracker.reign().confirmed_at
    }

    /// What the probes are to do, since the last call.
    pub(crate) fn take_probes(&mut self, now: Instant) -> Option<Probes> {
        self.roles.as_mut()?.tracker.take_probes(now)
    }

    /// The time between two questions to a node while something is in doubt.
    pub(crate) fn fast_pace(&self, now: Instant) -> Option<Duration> {
        match self.roles.as_ref()?.tracker.pace(now) {
            Pace::Fast(pace) => Some(pace),
            Pace::Steady => None,
        }
    }

    /// What happened to the primary since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        let roles = self.roles.as_mut();
        roles.map_or_else(Vec::new, |roles| roles.tracker.take_events())
    }

    pub(super) fn with_tracker(&mut self, now: Instant, tell: impl FnOnce(&mut Tracker)) {
        let Some(roles) = &mut self.roles else { return };
        tell(&mut roles.tracker);
        if roles.tracker.wants_refresh() {
            self.cadence.refresh(now, &self.config);
        }
        if self.note_roles() {
            self.release(now);
            self.update(now);
        }
    }

    /// Tells the tracker who is followed, if that changed.
    pub(super) fn follow(&mut self, now: Instant) {
        if !mem::take(&mut self.relisted) {
            return;
        }
        let accepted = self.accepted();
        let Some(roles) = &mut self.roles else { return };
        let is_here = |slot: &Slot<_>| slot.is_live() && Some(slot.id) == accepted;
        if accepted.is_some() && !self.slots.iter().any(is_here) {
            // Another pod has its address.
            roles.tracker.depart(now);
        }
        let listed = |slot: &&Slot<_>| slot.presence == Presence::Live;
        let members = self.slots.iter().filter(listed);
        roles
            .tracker
            .follow(now, members.map(|slot| &slot.endpoint));
        self.note_roles();
        self.release(now);
    }

    /// Whether anything is known of the primary that was not: then the order of the set may be another.
    fn note_roles(&mut self) -> bool {
        let Some(roles) = &mut self.roles else {
            return false;
        };
        // A node that was promoted once more stays where it stands in the set, and all its connections died.
        let reign = roles.reign();
        self.dirty |= mem::replace(&mut roles.reign, reign) != reign;
        let status = roles.tracker.report();
        let is_known = |known: &Arc<Report>| Arc::ptr_eq(known, &status);
        let is_news = !self.status.primary.as_ref().is_some_and(is_known);
        self.status.primary = Some(status);
        is_news
    }

    /// Who stays in the set also when DNS lists it no more, as long as it says that it is the primary
    /// (primary R10).
    pub(super) fn accepted(&self) -> Option<u64> {
        Some(self.roles.as_ref()?.tracker.accepted()?.id())
    }

    /// Lets those go that were held and are not the primary any more.
    fn release(&mut self, now: Instant) {
        // Not whom the tracker holds: it may not know yet that DNS lacks it.
        let accepted = self.accepted();
        let gone = self
            .slots
            .iter_mut()
            .filter(|slot| slot.presence == Presence::Held && Some(slot.id) != accepted);
        for slot in gone {
            slot.presence = Presence::Absent { since: now };
            self.fates.push((Fate::Removed, slot.service.clone()));
            self.removed.push(Arc::clone(&slot.endpoint));
            self.status.removed += 1;
            self.dirty = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::Address,
        probe::{ProbeFailure, Role, Term},
        registry::{
            Config,
            by_hand::{ByHand, addr},
        },
        set::EndpointSet,
    };

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(250);

    fn probed() -> Config {
        Config {
            probe_interval: Some(INTERVAL),
            ..Config::default()
        }
    }

    fn primary_in(term: u128) -> Observation {
        Observation::of(Role::Primary).in_term(Term::new(term))
    }

    /// Hosts 1 to 3 are known; 1 is the primary in term 4, the others follow.
    fn cluster(config: Config) -> ByHand {
        let mut hand = ByHand::new(config, true);
        hand.answer(1..=3);
        heard(&mut hand);
        hand
    }

    fn heard(hand: &mut ByHand) {
        hand.observed(2, Ok(Role::Replica.into()));
        hand.observed(3, Ok(Role::Replica.into()));
        hand.observed(1, Ok(primary_in(4)));
        assert_eq!(hand.position(1), Some(Position::Primary));
    }

    fn primary(set: &EndpointSet) -> Option<u64> {
        Some(set.at(set.primary()?)?.id())
    }

    #[test]
    fn reports_that_come_together_make_one_set() {
        let mut hand = ByHand::new(probed(), true);
        hand.answer(1..=3);
        let generation = hand.set.generation();
        let seen = [
            (2, Ok(Role::Replica.into())),
            (1, Ok(primary_in(4))),
            (3, Ok(primary_in(5))),
        ];
        let seen = seen.map(|(host, seen)| (hand.endpoint(host).id(), seen));
        hand.registry.on_all_observed(hand.now, seen);
        hand.hear();
        assert_eq!(hand.set.generation(), generation + 1);
        let positions = [1, 2, 3].map(|host| hand.position(host));
        use Position::{Primary, Rejected, Replica};
        assert_eq!(positions, [Rejected, Replica, Primary].map(Some));
    }

    #[test]
    fn a_new_term_of_the_same_primary_is_published_though_no_endpoint_moves() {
        let mut hand = cluster(probed());
        let before = hand.set.reign();
        hand.observed(1, Ok(primary_in(6)));
        let now = hand.set.reign();
        assert_eq!(now.term, Some(Term::new(6)));
        assert_eq!(
            (now.generation, now.epoch),
            (before.generation + 1, before.epoch + 1)
        );
    }

    #[test]
    fn a_primary_that_left_dns_stays_when_a_connect_to_it_fails() {
        let mut hand = cluster(probed());
        hand.answer([2, 3]);
        hand.refused(1);
        assert_eq!(hand.position(1), Some(Position::Primary));
        assert_eq!(hand.told(), []);
        hand.observed(2, Ok(primary_in(5)));
        assert_eq!(
            (hand.hosts(), hand.told()),
            (vec![2, 3], vec![("removed", 1)])
        );
        hand.wait(30 * SECOND);
        assert_eq!(hand.told(), [("retired", 1)]);
    }

    #[test]
    fn a_primary_whose_address_another_pod_has_is_lost_at_once() {
        let named = |first: &'static str| {
            [(first, 1), ("db-1", 2), ("db-2", 3)]
                .into_iter()
                .map(|(name, host)| Address::from(addr(host)).named(name))
        };
        let mut hand = ByHand::new(probed(), true);
        hand.listed(named("db-0"));
        heard(&mut hand);
        let (old, epoch) = (primary(&hand.set), hand.set.reign().epoch);
        hand.listed(named("db-9"));
        assert_eq!(primary(&hand.set), None);
        assert_eq!(hand.set.reign().epoch, epoch + 1);
        assert_eq!(hand.told(), [("removed", 1)]);
        hand.observed(2, Ok(primary_in(4)));
        assert!(primary(&hand.set).is_some() && primary(&hand.set) != old);
        assert_eq!(hand.position(2), Some(Position::Primary));
    }

    #[test]
    fn a_primary_that_grows_too_old_in_the_tick_that_ends_its_lease_is_held() {
        let mut hand = cluster(Config {
            max_stale: Some(10 * SECOND),
            ..probed()
        });
        // Lease: two intervals and a timeout.
        hand.wait(9 * SECOND);
        hand.observed(1, Ok(primary_in(4)));
        hand.wait(SECOND);
        assert_eq!(hand.hosts(), [1]);
        assert_eq!(hand.position(1), Some(Position::Primary));
        hand.observed(1, Ok(primary_in(4)));
        assert_eq!(hand.position(1), Some(Position::Primary));
    }

    #[test]
    fn one_that_is_admitted_as_the_last_resort_is_listened_to_at_once() {
        let mut hand = ByHand::new(
            Config {
                warm_up: Some(3 * SECOND),
                ..probed()
            },
            true,
        );
        hand.answer([1]);
        hand.answer([1, 2]);
        assert_eq!(hand.hosts(), [1]);
        hand.observed(
            1,
            Err(ProbeError::new(ProbeFailure::Refused, "as scripted")),
        );
        assert_eq!(hand.hosts(), [1, 2]);
        hand.observed(2, Ok(primary_in(4)));
        assert_eq!(hand.position(2), Some(Position::Primary));
    }

    #[test]
    fn dns_goes_on_without_a_held_primary_and_nothing_is_doubted_for_it() {
        let mut hand = cluster(probed());
        for _ in 0..3 {
            assert_eq!(hand.hosts(), [1, 2, 3]);
            hand.wait(5 * SECOND);
            hand.observed(1, Ok(primary_in(4)));
            hand.nothing();
        }
        assert_eq!(hand.hosts(), [1]);
        assert_eq!(hand.registry.status().stale_since(), None);
        hand.nothing();
        assert_eq!(hand.registry.status().stale_since(), None, "believed");
        let mut told = hand.told();
        told.sort_unstable();
        assert_eq!(told, [("removed", 2), ("removed", 3)]);
        hand.answer(1..=3);
        let mut told = hand.told();
        told.sort_unstable();
        assert_eq!(told, [("returned", 2), ("returned", 3)]);
    }

    #[test]
    fn a_held_primary_does_not_count_among_those_that_an_answer_lacks() {
        let mut hand = cluster(probed());
        hand.answer([2, 3]);
        hand.answer([2]);
        // One of three: no need to see that twice.
        assert_eq!(hand.hosts(), [1, 2]);
    }

    #[test]
    fn a_hint_that_doubts_connections_makes_dns_be_asked() {
        let mut hand = cluster(probed());
        // Nothing changes: the next question is due after seconds.
        (0..4).for_each(|_| hand.answer(1..=3));
        hand.wait(6 * INTERVAL);
        assert!(!hand.registry.is_due(hand.now));
        hand.registry.on_hint(hand.now, None, Hint::Connection);
        assert!(hand.registry.is_due(hand.now));
    }
}
