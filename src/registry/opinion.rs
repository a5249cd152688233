//! What is thought of endpoints, from how requests to them went, and the limits to that.

use std::{iter, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{NewService, Registry, roles::Roles, slot::Slot};
use crate::{
    eject::{Crowd, Finding, Rule, Sweep, Tally, Unenforced, Verdict},
    endpoint::Endpoint,
    probe::ProbeError,
    set::Position,
};

#[cfg(test)]
mod cases;

/// What became of an endpoint for how requests to it or its health checks went, for logs and counters.
#[derive(Debug)]
pub(crate) enum HealthEvent {
    /// It is set aside, for so long.
    Ejected {
        endpoint: Arc<Endpoint>,
        finding: Finding,
        time: Duration,
    },
    /// A rule found it, and the limits spare it.
    Spared {
        endpoint: Arc<Endpoint>,
        finding: Finding,
        why: Unenforced,
    },
    /// It is back with one request at a time.
    OnTrial { endpoint: Arc<Endpoint> },
    /// A request on trial succeeded.
    Returned { endpoint: Arc<Endpoint> },
    /// So many health checks failed in a row.
    FailsChecks {
        endpoint: Arc<Endpoint>,
        error: Arc<ProbeError>,
    },
    /// So many succeeded again.
    PassesChecks { endpoint: Arc<Endpoint> },
    /// So few would be left that ejections do not count; or do again.
    Panic {
        is_on: bool,
        available: usize,
        total: usize,
    },
}

/// A count of all endpoints of the set, by what their roles say.
#[derive(Debug, Default)]
pub(super) struct Census {
    crowd: Crowd,
    available: [usize; Position::COUNT],
    /// Of these, those that are on trial: they take requests, and nobody knows yet whether they serve any.
    on_trial: [usize; Position::COUNT],
    doubted: [usize; Position::COUNT],
}

impl Census {
    #[inline]
    pub(super) fn count<S>(&mut self, slot: &Slot<S>, standing: Position) {
        if standing == Position::Rejected {
            return;
        }
        self.crowd.total += 1;
        if standing == Position::Primary || slot.is_plain() {
            self.crowd.available += 1;
            self.available[standing as usize] += 1;
            return;
        }
        let is_doubted = slot.is_doubted();
        let is_available = !is_doubted && !slot.connectivity.is_ejected();
        self.crowd.ejected += usize::from(slot.outlier.is_ejected());
        self.crowd.available += usize::from(is_available);
        self.available[standing as usize] += usize::from(is_available);
        self.on_trial[standing as usize] += usize::from(is_available && slot.outlier.is_on_trial());
        self.doubted[standing as usize] += usize::from(is_doubted);
    }

    /// Those of whom nothing is to be told, by their standing.
    pub(super) fn count_plain(&mut self, plain: &[usize; Position::COUNT]) {
        for (count, plain) in iter::zip(&mut self.available, &plain[..Position::Rejected as usize])
        {
            *count += plain;
            self.crowd.total += plain;
            self.crowd.available += plain;
        }
    }

    /// Whether what is thought of endpoints must not count: too few would be left of all, or no replica.
    ///
    /// Beside replicas one of unknown role is often one that hangs: its role's last, and no loss.
    pub(super) fn is_panic(&self) -> bool {
        let of_replicas = |counts: &[usize; Position::COUNT]| counts[Position::Replica as usize];
        let is_lost = of_replicas(&self.doubted) > 0 && of_replicas(&self.available) == 0;
        let is_any_doubted = self.doubted.iter().any(|&doubted| doubted > 0);
        is_any_doubted && (self.crowd.is_panic() || is_lost)
    }

    pub(super) fn crowd(&self) -> Crowd {
        self.crowd
    }
}

/// The role of an endpoint, as far as is known.
#[inline]
pub(super) fn standing(roles: Option<&Roles>, id: u64) -> Position {
    roles.map_or(Position::Unknown, |roles| roles.position(id))
}

impl<N: NewService> Registry<N> {
    /// What happened to endpoints since the last call.
    pub(crate) fn take_health_events(&mut self) -> Vec<HealthEvent> {
        std::mem::take(&mut self.health_events)
    }

    /// Sets those aside that a rule has found, as far as the limits go.
    pub(super) fn eject(&mut self, now: Instant, suspects: Vec<(u64, Rule)>) {
        if suspects.is_empty() {
            return;
        }
        let mut census = Census::default();
        for slot in self.slots.iter().filter(|slot| slot.is_live()) {
            census.count(slot, standing(self.roles.as_ref(), slot.id));
        }
        let settings = &self.config.ejection;
        for (rank, rule) in suspects {
            let Ok(place) = self.slots.binary_search_by_key(&rank, |slot| slot.rank) else {
                continue;
            };
            let slot = &mut self.slots[place];
            let standing = standing(self.roles.as_ref(), slot.id);
            // The primary is observed; what clients think of it changes nothing.
            if !matches!(standing, Position::Replica | Position::Unknown) {
                continue;
            }
            let takes = !slot.connectivity.is_ejected() && !slot.is_unhealthy();
            let is_sure = takes && !slot.outlier.is_on_trial();
            // One on trial may hang: it is no reason to eject the only one that serves.
            let (takers, trials) = (
                &mut census.available[standing as usize],
                &mut census.on_trial[standing as usize],
            );
            let others = *takers - *trials - usize::from(is_sure);
            let endpoint = Arc::clone(&slot.endpoint);
            let finding = Finding {
                rule,
                last: endpoint.last_failure(),
            };
            match census.crowd.allows(settings.percent(), takes, others) {
                Ok(()) => {
                    let time = slot.outlier.eject(now, finding, settings);
                    endpoint.set_trial(false);
                    census.crowd.ejected += 1;
                    census.crowd.available -= usize::from(takes);
                    *takers -= usize::from(takes);
                    *trials -= usize::from(takes && !is_sure);
                    self.status.ejections += 1;
                    self.health_events.push(HealthEvent::Ejected {
                        endpoint,
                        finding,
                        time,
                    });
                }
                Err(why) if slot.outlier.spare() => {
                    self.status.spared += 1;
                    self.health_events.push(HealthEvent::Spared {
                        endpoint,
                        finding,
                        why,
                    });
                }
                Err(_) => {}
            }
        }
    }

    /// Compares the endpoints at the end of an interval, and forgives.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep_due.is_none_or(|due| now < due) {
            return;
        }
        self.sweep_due = None;
        let settings = &self.config.ejection;
        let swept = self.slots.iter_mut().filter_map(|slot| {
            if slot.outlier.is_on_trial() {
                // What it is tried with may be a stream of hours: one more is admitted.
                slot.endpoint.set_trial(true);
            }
            let interval = slot.outlier.sweep(slot.endpoint.tally())?;
            slot.is_live().then_some((slot.rank, interval))
        });
        let intervals: Vec<(u64, Tally)> = swept.collect();
        if !settings.sweeps() {
            return;
        }
        let sweep = Sweep::of(settings, &intervals.iter().map(|(_, interval)| *interval));
        let judged = intervals
            .into_iter()
            .filter_map(|(rank, interval)| Some((rank, sweep.judge(interval)?)));
        let suspects = judged.collect();
        self.eject(now, suspects);
    }

    /// Lets those come back whose time is over, one request at a time.
    pub(super) fn begin_trials(&mut self, now: Instant) {
        for slot in &mut self.slots {
            let endpoint = &slot.endpoint;
            if slot.outlier.until().is_some_and(|until| until <= now)
                && slot
                    .outlier
                    .expire(now, endpoint.tally(), endpoint.pending())
            {
                endpoint.set_trial(true);
                let endpoint = Arc::clone(endpoint);
                self.health_events.push(HealthEvent::OnTrial { endpoint });
            }
        }
    }
}

/// Looks at how requests to the endpoint went since the last look; what a rule finds goes to `suspects`.
pub(super) fn look<S>(
    slot: &mut Slot<S>,
    settings: &crate::eject::Ejection,
    suspects: &mut Vec<(u64, Rule)>,
    events: &mut Vec<HealthEvent>,
) {
    let endpoint = &slot.endpoint;
    match slot
        .outlier
        .look(endpoint.tally(), endpoint.streak(), settings)
    {
        Verdict::None => {}
        Verdict::Suspect(rule) => suspects.push((slot.rank, rule)),
        Verdict::Passed => {
            endpoint.set_trial(false);
            let endpoint = Arc::clone(endpoint);
            events.push(HealthEvent::Returned { endpoint });
        }
    }
}
