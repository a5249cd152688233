//! Which endpoint is the primary: claims observed by probes, ordered, and one of them accepted.
//!
//! What programs see of it is the [`Report`], in [`Status::primary`](crate::Status::primary) and in
//! errors: the state, and how each endpoint stands to the primary, with its [`Reason`] and age.
//!
//! A primary is observed, never elected. The tracker is plain code: it takes `now`, does no I/O and draws
//! no lots. The rules R1-R14 that comments name are tests of their name.
//!
//! ```text
//!             first claim, settled (R5)
//!   Unknown ------------------------> Stable{p} <-- the same claim again -- Suspect{p}
//!      |                               |    |                                ^    |
//!      | settled,                      |    +-- a failure, the lease over ---+    |
//!      | unordered                     +-- claim lost --> NoPrimary <- claim lost-+
//!      v                                                  |       |
//!   Conflict (R3): its policy keeps p, or nobody          |       +-- all claims of another
//!                                                         |           cluster (R11): Stable{new}
//!   any state: a claim that supersedes --> Stable{new}    +-- an open claim --> Stable{new}
//! ```
//!
//! A claim is an answer "primary" of the right cluster, not fenced, that was observed in time. It is lost
//! by one certain answer against it, or by two passing failures in a row. Claims are ordered by terms if
//! both tell one, by lineage if one names the other's data as those before its own, or else not at all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, mem,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    backoff::FOREVER,
    endpoint::Endpoint,
    hint::Hint,
    probe::{Observation, ProbeError, Term},
    set::Position,
};

#[cfg(test)]
mod by_hand;
#[cfg(test)]
mod cases;
mod conflict;
mod decide;
mod demand;
mod events;
mod hearing;
mod lag;
mod node;
mod order;
mod pace;
mod reason;
mod rebuild;
mod replication;
mod report;
#[cfg(test)]
mod rules;
mod standing;
#[cfg(test)]
mod twin;

use conflict::Conflict;
pub use conflict::OnConflict;
use decide::Challenge;
use demand::Demand;
pub(crate) use demand::Probes;
pub(crate) use events::Event;
use lag::Ring;
use node::{Change, Node};
pub use order::HighestTerm;
use order::{Claim, Memory};
pub(crate) use pace::Pace;
pub use reason::Reason;
use rebuild::Rebuild;
pub use report::{LastPrimary, Observed, Report, State};

/// The settings of a tracker.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Time between two questions of the probe.
    pub(crate) interval: Duration,
    /// The most that one takes.
    pub(crate) timeout: Duration,
    /// How long the first claim waits for others. Default 250 ms, one interval of a cheap probe: a
    /// zombie may answer first.
    pub(crate) settle: Duration,
    /// How long a primary that left DNS stays the primary. Default 30 s, as removed endpoints linger.
    pub(crate) linger: Duration,
    pub(crate) on_conflict: OnConflict,
}

impl Config {
    /// The defaults, for a probe with this interval and timeout.
    pub(crate) fn of(interval: Duration, timeout: Duration) -> Self {
        Self {
            interval,
            timeout,
            settle: Duration::from_millis(250),
            linger: Duration::from_secs(30),
            on_conflict: OnConflict::default(),
        }
    }

    /// How long an answer counts as fresh (R6).
    pub(crate) fn lease(&self) -> Duration {
        let lease = self.interval.saturating_mul(2);
        lease.saturating_add(self.timeout).min(FOREVER)
    }

    fn bounded(mut self) -> Self {
        for time in [
            &mut self.interval,
            &mut self.timeout,
            &mut self.settle,
            &mut self.linger,
        ] {
            *time = (*time).min(FOREVER / 4);
        }
        self
    }
}

/// Who is the primary, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reign {
    /// Counts switches of the accepted endpoint and term.
    pub(crate) generation: u64,
    /// Moves with each new generation and with each loss: what was connected before is to be doubted.
    pub(crate) epoch: u64,
    /// The term of the accepted primary, or of the last one.
    pub(crate) term: Option<Term>,
    /// When that was last seen to claim it.
    pub(crate) confirmed_at: Option<Instant>,
}

/// The state machine. See the [module](self).
pub(crate) struct Tracker {
    config: Config,
    /// By id, so that everything that goes through all of them has one order.
    nodes: BTreeMap<u64, Node>,
    addresses: HashMap<SocketAddr, u64>,
    /// Those whose answer that counts is "primary", whatever is to be said against it.
    claims: BTreeSet<u64>,
    /// How many no probe reported of yet.
    unheard: usize,
    /// The number of the last listing.
    listing: u64,
    /// The number of the last observed step from replica to primary.
    turns: u64,
    memory: Memory,
    /// Whether the first claims were waited for (R5), and since when they are.
    is_settled: bool,
    first_claim: Option<Instant>,
    /// Whether what was claimed before the cluster was known is in the memory.
    is_learned: bool,
    accepted: Option<Accepted>,
    reign: Reign,
    /// The accepted one, or the last.
    reigned: Option<Accepted>,
    last: Option<LastPrimary>,
    /// Why the accepted one is suspect.
    doubt: Option<Reason>,
    conflict: Option<Conflict>,
    challenge: Option<Challenge>,
    /// The last step to primary that the incumbent answered by claiming again (R4).
    answered_turn: u64,
    rebuild: Option<Rebuild>,
    /// Until when the accepted one, which left DNS, stays (R10).
    unlisted_until: Option<Instant>,
    ring: Ring,
    /// Whether an endpoint shows a lag.
    shows_lag: bool,
    state: State,
    state_since: Option<Instant>,
    /// All are to be judged anew.
    is_unjudged: bool,
    demand: Demand,
    events: Vec<Event>,
    report: OnceLock<Arc<Report>>,
}

/// An endpoint with the claim that was accepted.
#[derive(Clone, Debug)]
struct Accepted {
    endpoint: Arc<Endpoint>,
    claim: Claim,
}

impl Tracker {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config: config.bounded(),
            nodes: BTreeMap::new(),
            addresses: HashMap::new(),
            claims: BTreeSet::new(),
            unheard: 0,
            listing: 0,
            turns: 0,
            memory: Memory::default(),
            is_settled: false,
            first_claim: None,
            is_learned: false,
            accepted: None,
            reign: Reign::default(),
            reigned: None,
            last: None,
            doubt: None,
            conflict: None,
            challenge: None,
            answered_turn: 0,
            rebuild: None,
            unlisted_until: None,
            ring: Ring::default(),
            shows_lag: false,
            state: State::Unknown,
            state_since: None,
            is_unjudged: false,
            demand: Demand::default(),
            events: Vec::new(),
            report: OnceLock::new(),
        }
    }

    // ===== events =====

    /// The endpoints of the set now, and those that wait to be in it. One that is gone is forgotten,
    /// unless it is the accepted primary (R10).
    pub(crate) fn follow<'a>(
        &mut self,
        now: Instant,
        endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    ) {
        self.advance(now);
        self.listing += 1;
        let mut is_changed = false;
        for endpoint in endpoints {
            let listing = self.listing;
            let node = self.nodes.entry(endpoint.id()).or_insert_with(|| {
                self.unheard += 1;
                self.addresses.insert(endpoint.addr(), endpoint.id());
                is_changed = true;
                Node::new(now, Arc::clone(endpoint), listing)
            });
            node.listing = listing;
        }
        let gone = |(id, node): (&u64, &Node)| (node.listing < self.listing).then_some(*id);
        let gone: Vec<u64> = self.nodes.iter().filter_map(gone).collect();
        self.unlisted_until = match self.accepted_id() {
            Some(id) if gone.binary_search(&id).is_ok() => {
                Some(self.unlisted_until.unwrap_or(now + self.config.linger))
            }
            _ => None,
        };
        for id in gone {
            if !self.is_accepted(id) {
                self.forget(id);
                is_changed = true;
            }
        }
        if is_changed {
            self.report.take();
            self.decide(now);
        }
        self.advance(now);
        self.finish(now, None);
    }

    /// The accepted primary is gone for good, and nobody will hear of it again: no linger for that.
    pub(crate) fn depart(&mut self, now: Instant) {
        self.advance(now);
        if let Some(id) = self.accepted_id() {
            self.lose(now, Reason::Unlisted);
            self.forget(id);
            self.decide(now);
        }
        self.finish(now, None);
    }

    /// A probe of the endpoint with this id told something, or failed to.
    pub(crate) fn observed(
        &mut self,
        now: Instant,
        id: u64,
        result: Result<Observation, ProbeError>,
    ) {
        self.advance(now);
        let Some(node) = self.nodes.get_mut(&id) else {
            // A last report of an endpoint that just left.
            self.finish(now, None);
            return;
        };
        node.checked = Some(now);
        if !mem::replace(&mut node.is_heard, true) {
            self.unheard -= 1;
        }
        let change = match result {
            Ok(observation) => self.answered(now, id, observation),
            Err(error) => self.failed(id, &Arc::new(error)),
        };
        let is_answered = self.answer_challenge(id);
        if change == Change::News || is_answered || self.is_pending(id) {
            self.decide(now);
        }
        self.count_round(now, id);
        self.confirm(now, id);
        let diverges = self.replicate(now, id);
        let is_news = change == Change::News || diverges;
        self.finish(now, is_news.then_some(id));
        self.tell(now, id);
    }

    /// An error of the application hints that the primary may be another: never evidence, a reason to
    /// look. `epoch` is the one that its connection was stamped with; of an older one it says nothing new.
    pub(crate) fn hinted(
        &mut self,
        now: Instant,
        from: Option<u64>,
        epoch: Option<u64>,
        hint: Hint,
    ) {
        self.advance(now);
        if epoch.is_none_or(|epoch| epoch >= self.reign.epoch) {
            match hint {
                Hint::NotPrimary | Hint::GoingAway | Hint::Moved(None) => self.demand.all(now),
                Hint::Moved(Some(address)) => self.look_at(now, address),
                Hint::NotReady => self.want_probe(now, from),
                Hint::Connection => {
                    self.want_probe(now, from);
                    self.demand.refresh();
                }
                Hint::Overload => {}
            }
        }
        self.finish(now, None);
    }

    /// Time passed: ends what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.advance(now);
        self.finish(now, None);
    }

    /// The cluster was restored from a backup: no term or data seen before speak against a claim now (R14).
    ///
    /// A primary that is not confirmed is lost with it, lest its old term comes back.
    pub(crate) fn forget_term(&mut self, now: Instant) {
        self.advance(now);
        self.memory.clear();
        self.is_unjudged = true;
        if self.doubt.is_some()
            && let Some(id) = self.accepted_id()
        {
            self.lose(now, Reason::Forgotten);
            self.claims.remove(&id);
            if let Some(node) = self.nodes.get_mut(&id) {
                node.end();
            }
        }
        if let Some(Accepted { endpoint, claim }) = self.accepted.clone() {
            self.remember(&endpoint, &claim, now);
        }
        self.decide(now);
        self.finish(now, None);
    }

    // ===== what the registry and the driver ask =====

    /// When to [`tick`](Self::tick) next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let settle = self.first_claim.filter(|_| !self.is_settled);
        let accepted = self.accepted_node().filter(|_| self.doubt.is_none());
        let lag = self.ring.until().filter(|_| self.shows_lag);
        [
            settle.map(|first| first + self.config.settle),
            accepted.map(|node| node.until),
            lag,
            self.unlisted_until,
            self.demand.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The primary, confirmed lately or not.
    pub(crate) fn accepted(&self) -> Option<&Arc<Endpoint>> {
        self.accepted.as_ref().map(|accepted| &accepted.endpoint)
    }

    pub(crate) fn reign(&self) -> Reign {
        self.reign
    }

    /// The primary, if it left DNS: it takes work as long as it claims to be it (R10).
    #[cfg(test)]
    pub(crate) fn held(&self) -> Option<&Arc<Endpoint>> {
        self.accepted().filter(|_| self.unlisted_until.is_some())
    }

    /// Where the endpoint stands, its connects apart.
    pub(crate) fn standing(&self, id: u64) -> Position {
        let node = self.nodes.get(&id);
        node.map_or(Position::Unknown, |node| node.verdict.position)
    }

    /// How many endpoints no probe reported of yet.
    pub(crate) fn unheard(&self) -> usize {
        self.unheard
    }

    /// Which endpoints to probe now.
    pub(crate) fn take_probes(&mut self, now: Instant) -> Option<Probes> {
        self.demand.take(now)
    }

    /// Whether to ask DNS.
    pub(crate) fn wants_refresh(&mut self) -> bool {
        self.demand.take_refresh()
    }

    /// What happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        mem::take(&mut self.events)
    }

    // ===== what follows from an event =====

    /// Ends what is over: the wait for first claims, the lease, the linger, the last look at positions.
    fn advance(&mut self, now: Instant) {
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        self.state_since.get_or_insert(now);
        if is_due(self.unlisted_until) {
            self.lose(now, Reason::Unlisted);
            self.decide(now);
        }
        if !self.is_settled && is_due(self.first_claim.map(|first| first + self.config.settle)) {
            self.decide(now);
        }
        if self.doubt.is_none() && self.accepted_node().is_some_and(|node| !node.is_fresh(now)) {
            self.suspect(Reason::LeaseOver);
        }
        if self.shows_lag && is_due(self.ring.until()) {
            self.hide_lag();
        }
    }

    /// The endpoint is gone. What it said of terms stays: that belongs to the cluster.
    fn forget(&mut self, id: u64) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        if self.addresses.get(&node.endpoint.addr()) == Some(&id) {
            self.addresses.remove(&node.endpoint.addr());
        }
        self.unheard -= usize::from(!node.is_heard);
        // It may return as the same endpoint, and tell its role before its position.
        node.endpoint.replicated(None, None, None);
        self.claims.remove(&id);
        self.demand.forget(id);
        self.forget_round(id);
        self.forget_claimant(id);
    }

    /// Judges what changed, and notes the state. `news`: the node that says something else than before.
    fn finish(&mut self, now: Instant, news: Option<u64>) {
        if mem::take(&mut self.is_unjudged) {
            self.judge_all(now);
        } else if let Some(id) = news {
            self.judge(now, id);
        }
        let state = self.state_now();
        if mem::replace(&mut self.state, state) != state {
            self.state_since = Some(now);
            self.report.take();
            if state != State::Stable {
                self.demand.all(now);
            }
        }
    }

    fn state_now(&self) -> State {
        match (&self.accepted, &self.conflict) {
            (Some(_), _) if self.doubt.is_some() => State::Suspect,
            (_, Some(_)) => State::Conflict,
            (Some(_), None) => State::Stable,
            (None, None) if self.last.is_some() => State::NoPrimary,
            (None, None) => State::Unknown,
        }
    }

    fn accepted_id(&self) -> Option<u64> {
        self.accepted().map(|endpoint| endpoint.id())
    }

    fn is_accepted(&self, id: u64) -> bool {
        self.accepted_id() == Some(id)
    }

    fn accepted_node(&self) -> Option<&Node> {
        self.nodes.get(&self.accepted_id()?)
    }
}

impl fmt::Debug for Tracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracker")
            .field("state", &self.state)
            .field("accepted", &self.accepted)
            .field("reign", &self.reign)
            .finish_non_exhaustive()
    }
}
