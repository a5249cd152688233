//! Where each endpoint stands, why and since when.

use std::{mem, sync::Arc};

use tokio::time::Instant;

use super::{
    Event, Observed, Reason, Report, State, Tracker,
    events::Told,
    node::{Node, Verdict, Voice},
};
use crate::{probe::Role, set::Position};

impl Tracker {
    /// The primary and how each endpoint stands to it. Built anew only when something other than an age
    /// changed.
    pub(crate) fn report(&self) -> Arc<Report> {
        Arc::clone(self.report.get_or_init(|| Arc::new(self.describe())))
    }

    /// Judges one node anew.
    pub(super) fn judge(&mut self, now: Instant, id: u64) {
        let Some(node) = self.nodes.get(&id) else {
            return;
        };
        let verdict = self.verdict(now, node);
        if let Some(node) = self.nodes.get_mut(&id)
            && !verdict.is_like(&node.verdict)
        {
            node.verdict = verdict;
            self.report.take();
        }
    }

    /// Judges all of them: who is the primary, or what others are compared with, changed.
    pub(super) fn judge_all(&mut self, now: Instant) {
        let mut nodes = mem::take(&mut self.nodes);
        for node in nodes.values_mut() {
            let verdict = self.verdict(now, node);
            if !verdict.is_like(&node.verdict) {
                node.verdict = verdict;
            }
        }
        self.nodes = nodes;
        self.report.take();
    }

    fn verdict(&self, now: Instant, node: &Node) -> Verdict {
        let (position, reason) = self.stand(node);
        Verdict {
            position,
            role: node.role(),
            reason,
            since: now,
        }
    }

    /// The position of a node and what is to be said of it.
    fn stand(&self, node: &Node) -> (Position, Option<Reason>) {
        let id = node.endpoint.id();
        if self.is_accepted(id) {
            let doubt = self.doubt.clone();
            return (Position::Primary, doubt.or_else(|| self.rivalry(Some(id))));
        }
        if let Some(reason) = self.rejection(node) {
            return (Position::Rejected, Some(reason));
        }
        match (node.role(), node.voice) {
            (None, Voice::Down) => (Position::Ejected, Some(node.silence())),
            (None, _) => (Position::Unknown, Some(node.silence())),
            (Some(Role::Primary), _) => {
                let fenced = node.fence().map(|by| Reason::Fenced { by: by.into() });
                (Position::Unknown, fenced.or_else(|| self.rivalry(Some(id))))
            }
            (Some(Role::Replica), _) => {
                let diverged = node.trail.diverged || self.is_in_older_term(node);
                (Position::Replica, diverged.then_some(Reason::Diverged))
            }
            (Some(Role::Unknown), _) => (Position::Unknown, None),
        }
    }

    fn describe(&self) -> Report {
        let observed = |node: &Node| Observed {
            endpoint: Arc::clone(&node.endpoint),
            position: node.verdict.position,
            role: node.verdict.role,
            // Anew: the time at which the highest term was seen went on.
            reason: self.stand(node).1,
            since: node.verdict.since,
        };
        let endpoints: Box<[Observed]> = self.nodes.values().map(observed).collect();
        let fenced = || {
            let reasons = endpoints
                .iter()
                .filter_map(|observed| observed.reason.as_ref());
            let mut fenced = reasons.filter(|reason| matches!(reason, Reason::Fenced { .. }));
            fenced.next().cloned()
        };
        let why = match self.state {
            State::Stable => None,
            State::Suspect => self.doubt.clone(),
            State::Conflict => self.rivalry(self.accepted_id()),
            State::NoPrimary => self.last.as_ref().map(|last| last.why.clone()),
            State::Unknown => fenced(),
        };
        Report {
            state: self.state,
            why,
            since: self.state_since,
            primary: self.accepted().cloned(),
            last: self.last.clone(),
            highest: self.memory.highest().cloned(),
            is_restore: self.is_restore(),
            endpoints,
        }
    }

    /// Whether all claims are rejected for what nobody who lives claims: so it looks after a restore (R14).
    fn is_restore(&self) -> bool {
        let is_stale = |id| {
            let rejection = self.rejection(&self.nodes[id]);
            rejection.is_some_and(|reason| reason.is_stale())
        };
        self.accepted.is_none() && !self.claims.is_empty() && self.claims.iter().all(is_stale)
    }

    /// Events of one node's last report, each once while it lasts.
    pub(super) fn tell(&mut self, now: Instant, id: u64) {
        let lease = self.config.lease();
        let Some(node) = self.nodes.get_mut(&id) else {
            return;
        };
        let is_claim = node.role() == Some(Role::Primary);
        // A replica may follow a new primary before that one's claim is seen: then it is ours soon.
        let is_old = node.verdict.since + lease <= now;
        let lasting = match &node.verdict.reason {
            Some(reason) if reason.is_stale() && is_claim => Some(Told::Stale),
            Some(Reason::WrongCluster { .. }) if is_claim || is_old => Some(Told::WrongCluster),
            Some(Reason::Fenced { .. }) => Some(Told::Fenced),
            _ => None,
        };
        let error = node.error.as_ref();
        let mute = error
            .filter(|error| error.failure().is_mute())
            .map(|_| Told::Mute);
        if error.is_none() {
            node.told.retain(|told| Some(*told) == lasting);
        }
        for told in [lasting, mute].into_iter().flatten() {
            if !node.told.contains(&told) {
                node.told.push(told);
                self.events.extend(node.event(told));
            }
        }
    }
}

impl Node {
    fn event(&self, told: Told) -> Option<Event> {
        let endpoint = Arc::clone(&self.endpoint);
        if told == Told::Mute {
            let error = Arc::clone(self.error.as_ref()?);
            return Some(Event::Mute { endpoint, error });
        }
        let why = self.verdict.reason.clone()?;
        Some(match (told, why) {
            (_, Reason::Fenced { by }) => Event::Fenced { endpoint, by },
            (Told::WrongCluster, why) => Event::WrongCluster { endpoint, why },
            (_, why) => Event::StalePrimary { endpoint, why },
        })
    }
}

impl Verdict {
    /// Whether both say the same, but for since when.
    fn is_like(&self, other: &Self) -> bool {
        let reasons = match (&self.reason, &other.reason) {
            (None, None) => true,
            (Some(a), Some(b)) => a.is_like(b),
            _ => false,
        };
        reasons && self.position == other.position && self.role == other.role
    }
}
