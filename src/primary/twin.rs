//! The tracker against a small simulated cluster, over many random histories on a hand-moved clock.
//!
//! The cluster has a truth: who is up, hung or cut off, who follows, who believes to be the primary, in
//! which term and of which data. Probes sample it and report later; DNS lists some of it; hints come at
//! random. After each step the invariants hold, and once the truth is quiet the true primary is accepted.
//! A failing history prints its seed and its last steps; `HEADLESS_LB_SEED=n` runs that one alone.

use std::{collections::HashMap, net::SocketAddr, panic, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    Config, Event, OnConflict, Pace, Probes, Reign, State, Tracker,
    by_hand::{INTERVAL, LEASE, TIMEOUT},
};
use crate::{
    endpoint::{Address, Endpoint},
    hint::Hint,
    probe::{Lineage, Observation, ProbeError, ProbeFailure, Role, Term},
    set::Position,
};

const HISTORIES: u64 = 2_000;
const EVENTS: usize = 60;
/// Each of the cluster's own time steps; a history has about so many of them between two events.
const STEP: Duration = Duration::from_millis(20);
/// Long enough for every lease, linger, back-off and rebuild to end: probes come once a second at worst.
const QUIET: Duration = Duration::from_secs(40);

/// How the claims of a cluster are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// PostgreSQL: timelines and a system identifier.
    Terms,
    /// Redis without Sentinel: an identity that changes with each promotion.
    Lineages,
    /// MySQL, an HTTP status: nothing.
    Nothing,
}

#[derive(Clone, Debug)]
struct Server {
    endpoint: Arc<Endpoint>,
    is_primary: bool,
    is_fenced: bool,
    term: u128,
    /// Which cluster it is of: one after the other has the same pods.
    era: u32,
    /// The identity of its data, and the one before.
    lineage: (u32, Option<u32>),
    health: Health,
    is_listed: bool,
    position: u64,
    /// The report that is under way, and when it arrives.
    report: Option<(Instant, Result<Observation, ProbeFailure>)>,
    /// When the next probe starts.
    next: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Up,
    Hung,
    Dead,
    Mute,
}

/// What the tracker may know: the reports that it was given.
#[derive(Debug, Default)]
struct Told {
    /// By endpoint id: the last answer's time, and passing failures in a row since.
    answers: HashMap<u64, (Instant, u32)>,
    /// By endpoint id: era and term of the last claim since it said replica.
    claims: HashMap<u64, (u32, u128)>,
    /// The highest term of any claim, by era.
    highest: HashMap<u32, u128>,
    /// The era of the last accepted claim.
    era: Option<u32>,
    /// The last accepted term.
    accepted: Option<Term>,
    is_settled: bool,
}

impl Told {
    fn raise(&mut self, era: u32, term: u128) {
        let highest = self.highest.entry(era).or_default();
        *highest = term.max(*highest);
    }
}

struct Simulation {
    rng: SmallRng,
    kind: Kind,
    start: Instant,
    now: Instant,
    servers: Vec<Server>,
    next_id: u32,
    term: u128,
    tracker: Tracker,
    told: Told,
    before: Reign,
    is_logged: bool,
    log: Vec<String>,
    accepted_times: u32,
    rebuilds: u32,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let now = Instant::now();
        let kind =
            [Kind::Terms, Kind::Terms, Kind::Lineages, Kind::Nothing][rng.random_range(0..4)];
        let config = Config {
            on_conflict: [
                OnConflict::PreferIncumbent,
                OnConflict::PreferIncumbent,
                OnConflict::Hold,
                OnConflict::HighestPosition,
                OnConflict::Authority,
            ][rng.random_range(0..5)],
            ..Config::of(INTERVAL, TIMEOUT)
        };
        let n = rng.random_range(2..=5);
        let server = |i: u8| {
            let address = Address::from(SocketAddr::from(([10, 0, 0, i], 5432)));
            Server {
                endpoint: Arc::new(Endpoint::new(address.named(format!("db-{i}")), now)),
                is_primary: i == 0,
                is_fenced: false,
                term: 1,
                era: 0,
                lineage: (0, None),
                health: Health::Up,
                is_listed: true,
                position: 0,
                report: None,
                next: now,
            }
        };
        let mut simulation = Self {
            rng,
            kind,
            start: now,
            now,
            servers: (0..n).map(server).collect(),
            next_id: 1,
            term: 1,
            tracker: Tracker::new(config),
            told: Told::default(),
            before: Reign::default(),
            is_logged: false,
            log: Vec::new(),
            accepted_times: 0,
            rebuilds: 0,
        };
        simulation.list();
        simulation
    }

    fn run(&mut self) {
        for _ in 0..EVENTS {
            self.happen();
            for _ in 0..self.rng.random_range(0..30) {
                self.step();
            }
        }
        self.quiet();
    }

    // ===== the truth =====

    fn happen(&mut self) {
        let i = self.rng.random_range(0..self.servers.len());
        let what = self.rng.random_range(0..20);
        self.note(|| format!("event {what} on db-{i}"));
        match what {
            // A promotion; the old primary is told, or goes on as a zombie.
            0..4 => {
                let is_told = self.rng.random_bool(0.5);
                self.promote(i, is_told);
            }
            4 => self.servers[i].health = Health::Hung,
            5 => self.servers[i].health = Health::Dead,
            6 => self.servers[i].health = Health::Mute,
            7..11 => self.servers[i].health = Health::Up,
            11 => self.demote(i),
            12 => self.servers[i].is_fenced = self.kind == Kind::Terms && self.rng.random_bool(0.5),
            13 => {
                self.servers[i].is_listed = self.rng.random_bool(0.7);
                self.list();
            }
            // The pod comes back under another address.
            14 => {
                let address =
                    SocketAddr::from(([10, 0, self.rng.random(), self.rng.random()], 5432));
                let address = Address::from(address).named(format!("db-{i}"));
                self.servers[i].endpoint = Arc::new(Endpoint::new(address, self.now));
                self.servers[i].report = None;
                self.list();
            }
            15 => self.hint(i),
            // Starved: nothing is done for a while, then all at once.
            16 => self.now += STEP * self.rng.random_range(1..200),
            17 if self.rng.random_bool(0.3) => self.rebuild(i),
            // Two promotions that do not know of each other.
            18 if self.kind == Kind::Terms => {
                self.servers[i].is_primary = true;
                self.servers[i].term = self.term;
            }
            _ => {}
        }
    }

    fn promote(&mut self, i: usize, is_told: bool) {
        if self.servers[i].is_primary {
            return;
        }
        self.term += 1;
        let (term, id) = (self.term, self.next_id);
        self.next_id += 1;
        if is_told {
            for server in &mut self.servers {
                server.is_primary = false;
            }
        }
        let server = &mut self.servers[i];
        server.is_primary = true;
        server.term = term;
        server.lineage = (id, Some(server.lineage.0));
        if is_told {
            let lineage = server.lineage;
            self.follow_data(lineage);
        }
    }

    /// Replicas take the data of the newest primary.
    fn follow_data(&mut self, lineage: (u32, Option<u32>)) {
        for server in self.servers.iter_mut().filter(|server| !server.is_primary) {
            server.lineage = lineage;
        }
    }

    fn demote(&mut self, i: usize) {
        self.servers[i].is_primary = false;
        if let Some(newest) = self.newest() {
            self.servers[i].lineage = self.servers[newest].lineage;
        }
    }

    fn rebuild(&mut self, i: usize) {
        let (id, era) = (self.next_id, self.servers[i].era + 1);
        self.next_id += 1;
        self.term = 1;
        for (j, server) in self.servers.iter_mut().enumerate() {
            server.is_primary = j == i;
            server.is_fenced = false;
            server.term = 1;
            server.era = era;
            server.lineage = (id, None);
            server.position = 0;
            server.health = Health::Up;
            // All servers were stopped for that: no report of the old ones is under way.
            server.report = None;
        }
    }

    /// The primary that was promoted last.
    fn newest(&self) -> Option<usize> {
        let primaries = (0..self.servers.len()).filter(|i| self.servers[*i].is_primary);
        primaries.max_by_key(|i| (self.servers[*i].term, self.servers[*i].lineage.0))
    }

    fn truth(&self, server: &Server) -> Observation {
        let role = if server.is_primary {
            Role::Primary
        } else {
            Role::Replica
        };
        let seen = Observation::of(role).at_position(server.position);
        let seen = match self.kind {
            Kind::Terms => {
                let seen = seen.in_lineage(Lineage::of(format!("cluster-{}", server.era)));
                if server.is_primary {
                    seen.in_term(Term::new(server.term))
                } else {
                    seen
                }
            }
            Kind::Lineages => {
                let (id, previous) = server.lineage;
                let lineage = Lineage::of(format!("id-{id}"));
                seen.in_lineage(match previous {
                    Some(previous) => lineage.after(format!("id-{previous}")),
                    None => lineage,
                })
            }
            Kind::Nothing => seen,
        };
        if server.is_fenced {
            seen.fenced_by("fence")
        } else {
            seen
        }
    }

    // ===== what the tracker sees =====

    fn list(&mut self) {
        let listed = self.servers.iter().filter(|server| server.is_listed);
        let listed: Vec<_> = listed.map(|server| Arc::clone(&server.endpoint)).collect();
        self.tracker.follow(self.now, listed.iter());
        self.check();
    }

    fn hint(&mut self, i: usize) {
        let hint = [
            Hint::NotPrimary,
            Hint::GoingAway,
            Hint::Connection,
            Hint::NotReady,
            Hint::Moved(Some(self.servers[0].endpoint.addr())),
        ][self.rng.random_range(0..5)];
        let standing = self.standings();
        let epoch = self.rng.random_bool(0.5).then_some(self.before.epoch);
        let from = Some(self.servers[i].endpoint.id());
        self.tracker.hinted(self.now, from, epoch, hint);
        assert!(
            self.is_late() || standing == self.standings(),
            "a hint is no evidence"
        );
        self.check();
    }

    /// Whether something was due before the last input.
    fn is_late(&self) -> bool {
        self.tracker.state != State::Stable
    }

    fn standings(&self) -> Vec<Position> {
        let standing = |server: &Server| self.tracker.standing(server.endpoint.id());
        self.servers.iter().map(standing).collect()
    }

    /// Probes start, and reports arrive in any order.
    fn step(&mut self) {
        self.now += STEP;
        if self.tracker.deadline().is_some_and(|due| due <= self.now) {
            self.tracker.tick(self.now);
            self.check();
        }
        self.start_probes();
        for i in 0..self.servers.len() {
            let arrives = |(at, _): &mut (Instant, _)| *at <= self.now;
            let Some((_, result)) = self.servers[i].report.take_if(arrives) else {
                continue;
            };
            self.deliver(i, result);
        }
    }

    fn start_probes(&mut self) {
        let wait = match self.tracker.pace(self.now) {
            Pace::Steady => INTERVAL,
            Pace::Fast(wait) => wait,
        };
        let asked = self.tracker.take_probes(self.now);
        let held = self.tracker.held().map(|held| held.id());
        for i in 0..self.servers.len() {
            let server = &self.servers[i];
            let id = server.endpoint.id();
            let is_asked = match &asked {
                Some(Probes::All) => true,
                Some(Probes::These(ids)) => ids.contains(&id),
                None => false,
            };
            let is_due = is_asked || self.now >= server.next.min(self.now + wait);
            let is_followed = server.is_listed || held == Some(id);
            if server.report.is_some() || !is_due || !is_followed {
                continue;
            }
            let quickly = STEP * self.rng.random_range(0..5);
            let (after, result) = match server.health {
                Health::Up => (quickly, Ok(self.truth(server))),
                Health::Hung => (TIMEOUT, Err(ProbeFailure::Timeout)),
                Health::Dead => (quickly, Err(ProbeFailure::Refused)),
                Health::Mute => (quickly, Err(ProbeFailure::Saturated)),
            };
            let server = &mut self.servers[i];
            server.position += u64::from(server.is_primary) * 10;
            server.report = Some((self.now + after, result));
            server.next = self.now + after + wait;
        }
    }

    fn deliver(&mut self, i: usize, result: Result<Observation, ProbeFailure>) {
        let id = self.servers[i].endpoint.id();
        let is_known = self.tracker.nodes.contains_key(&id);
        self.note(|| match &result {
            Ok(seen) => format!(
                "db-{i} {} {:?} {:?} {:?}",
                seen.role(),
                seen.term(),
                seen.lineage()
                    .map(|lineage| (lineage.id(), lineage.previous())),
                seen.fence(),
            ),
            Err(failure) => format!("db-{i} {failure}"),
        });
        if is_known {
            self.hear(id, self.servers[i].era, &result);
        }
        let result = result.map_err(|failure| ProbeError::new(failure, "simulated"));
        self.tracker.observed(self.now, id, result);
        self.check();
    }

    fn hear(&mut self, id: u64, era: u32, result: &Result<Observation, ProbeFailure>) {
        match result {
            Ok(seen) => {
                self.told.answers.insert(id, (self.now, 0));
                if seen.role() == Role::Primary {
                    let term = seen.term().map_or(0, Term::number);
                    self.told.claims.insert(id, (era, term));
                    if self.told.is_settled {
                        self.told.raise(era, term);
                    }
                } else {
                    self.told.claims.remove(&id);
                }
            }
            Err(ProbeFailure::Saturated) => {}
            Err(_) => {
                if let Some((_, failures)) = self.told.answers.get_mut(&id) {
                    *failures += 1;
                }
            }
        }
    }

    // ===== what must hold =====

    fn check(&mut self) {
        // What is not listed is forgotten, but for the primary.
        let nodes = &self.tracker.nodes;
        self.told.claims.retain(|id, _| nodes.contains_key(id));
        self.told.answers.retain(|id, _| nodes.contains_key(id));
        let reign = self.tracker.reign();
        for event in self.tracker.take_events() {
            match event {
                Event::Rebuilt { .. } => {
                    self.rebuilds += 1;
                    self.told.era = None;

                    self.told.accepted = None;
                    self.told.highest.clear();
                    for (era, term) in self.told.claims.clone().into_values() {
                        self.told.raise(era, term);
                    }
                }
                Event::Accepted { endpoint, term, .. } => {
                    assert!(
                        term.is_none() || term >= self.told.accepted,
                        "the accepted term never falls"
                    );
                    self.told.accepted = term;
                    self.accepted_times += 1;
                    self.told.era = Some(self.told.claims[&endpoint.id()].0);
                }
                _ => {}
            }
        }
        if !self.told.is_settled && self.tracker.is_settled {
            self.told.is_settled = true;
            for (era, term) in self.told.claims.clone().into_values() {
                self.told.raise(era, term);
            }
        }

        assert!(
            reign.generation >= self.before.generation,
            "the generation never falls"
        );
        assert!(reign.epoch >= self.before.epoch, "the epoch never falls");
        if reign.generation != self.before.generation {
            assert!(
                reign.epoch > self.before.epoch,
                "a generation moves the epoch"
            );
        }
        self.before = reign;
        self.check_standings();
        self.check_accepted();
        self.check_deadline();
    }

    fn check_standings(&self) {
        let accepted = self.tracker.accepted().map(|endpoint| endpoint.id());
        let report = self.tracker.report();
        let primaries = report
            .endpoints()
            .iter()
            .filter(|o| o.position() == Position::Primary);
        let primaries: Vec<u64> = primaries.map(|o| o.endpoint().id()).collect();
        assert_eq!(
            primaries,
            accepted.into_iter().collect::<Vec<_>>(),
            "at most one primary"
        );
        assert_eq!(report.primary().map(|endpoint| endpoint.id()), accepted);
        for observed in report.endpoints() {
            let id = observed.endpoint().id();
            assert_eq!(
                self.tracker.standing(id),
                observed.position(),
                "the report is current"
            );
            let claim = self.told.claims.get(&id);
            let is_stale = |&(era, term): &(u32, u128)| {
                let ours = self.told.era;
                ours.is_some_and(|ours| ours != era || term < self.told.highest[&era])
            };
            if self.kind == Kind::Terms && claim.is_some_and(is_stale) {
                assert_eq!(observed.position(), Position::Rejected, "stale: {observed}");
            }
        }
    }

    fn check_accepted(&self) {
        let Some(accepted) = self.tracker.accepted() else {
            return;
        };
        let (at, failures) = self.told.answers[&accepted.id()];
        assert!(failures < 2, "two failures in a row end a claim");
        let state = self.tracker.report().state();
        if self.now >= at + LEASE {
            assert_eq!(state, State::Suspect, "no stable state outlives its lease");
        }
    }

    fn check_deadline(&mut self) {
        let mut again = self.tracker.deadline();
        if again.is_some_and(|at| at <= self.now) {
            // What is left after a tick are probes that nobody took yet.
            self.tracker.tick(self.now);
            again = self.tracker.deadline();
            let probes = self.tracker.demand.deadline();
            assert!(
                again == probes || again.is_none_or(|at| at > self.now),
                "a tick ends what is due"
            );
        }
    }

    /// One primary, all can be reached and are listed; zombies have lower terms, or step down.
    fn quiet(&mut self) {
        let newest = self.newest().unwrap_or(0);
        if !self.servers[newest].is_primary {
            self.promote(newest, true);
        }
        let lineage = self.servers[newest].lineage;
        let top = self.servers[newest].term;
        for (i, server) in self.servers.iter_mut().enumerate() {
            let is_zombie = self.kind == Kind::Terms && server.term < top;
            server.is_primary &= i == newest || is_zombie;
            server.health = Health::Up;
            server.is_fenced = false;
            server.is_listed = true;
        }
        if self.kind == Kind::Terms {
            // A claim in a term that nobody live has any more stays above the others until it is forgotten.
            let highest = self.told.highest.get(&self.servers[newest].era);
            self.term = self.term.max(highest.copied().unwrap_or(0)) + 1;
            self.servers[newest].term = self.term;
        } else {
            // Nor do data that others went on from come back by themselves.
            let lineage = (self.next_id, Some(lineage.0));
            self.servers[newest].lineage = lineage;
            self.follow_data(lineage);
        }
        self.note(|| format!("quiet, db-{newest} is the primary"));
        self.list();
        let truth = self.servers[newest].endpoint.addr();
        let is_found = |tracker: &Tracker| {
            let accepted = tracker.accepted().map(|endpoint| endpoint.addr());
            accepted == Some(truth) && tracker.state == State::Stable
        };
        let end = self.now + QUIET;
        while self.now < end && !is_found(&self.tracker) {
            self.step();
        }
        // And it stays.
        for _ in 0..100 {
            self.step();
        }
        assert!(is_found(&self.tracker), "{}", self.tracker.report());
        assert_eq!(self.tracker.pace(self.now), Pace::Steady);
    }

    fn note(&mut self, line: impl FnOnce() -> String) {
        if !self.is_logged {
            return;
        }
        let line = line();
        let accepted = self.tracker.accepted().and_then(|endpoint| endpoint.name());
        let (state, at) = (self.tracker.state, self.now - self.start);
        self.log
            .push(format!("{at:>9.2?} {state:?} {accepted:?} {line}"));
    }
}

#[test]
fn the_invariants_hold_over_random_histories_of_a_cluster() {
    let only = std::env::var("HEADLESS_LB_SEED").ok();
    let only = only.map(|seed| seed.parse::<u64>().expect("a number"));
    let seeds = only.map_or(0..HISTORIES, |seed| seed..seed + 1);
    let (mut accepted, mut rebuilds) = (0, 0);
    for seed in seeds {
        let mut simulation = Simulation::new(seed);
        let run = panic::catch_unwind(panic::AssertUnwindSafe(|| simulation.run()));
        accepted += u64::from(simulation.accepted_times);
        rebuilds += u64::from(simulation.rebuilds);
        if let Err(panic) = run {
            explain(seed);
            panic::resume_unwind(panic);
        }
    }
    if only.is_none() {
        assert!(
            accepted > HISTORIES * 5 && rebuilds > HISTORIES / 10,
            "{accepted} {rebuilds}"
        );
    }
}

/// Runs a failing history again and prints how it came to that.
fn explain(seed: u64) {
    let mut simulation = Simulation::new(seed);
    simulation.is_logged = true;
    let _ = panic::catch_unwind(panic::AssertUnwindSafe(|| simulation.run()));
    let log = &simulation.log;
    for line in &log[log.len().saturating_sub(40)..] {
        eprintln!("{line}");
    }
    let (kind, policy) = (simulation.kind, simulation.tracker.config.on_conflict);
    eprintln!("HEADLESS_LB_SEED={seed} {kind:?} {policy:?}");
}
