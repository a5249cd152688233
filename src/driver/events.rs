//! What is said aloud: set changes, and outages once.

use std::{error::Error, time::Duration};

use tokio::time::Instant;
use tracing::{debug, field::display, info, warn};

use crate::{
    primary::Event,
    registry::{HealthEvent, Published, Status},
    resolve::{ResolveError, ResolveErrorKind},
    set::EndpointSet,
};

/// A change of more endpoints than this is told as one event: the first answer of a large service
/// would flood a log.
const EACH: usize = 16;

/// INFO for what was added and removed.
pub(super) fn changed<S>(status: &Status, published: &Published<S>) {
    let (service, total) = (status.service(), status.endpoints());
    let (added, removed) = (published.added(), published.removed());
    if added.len() + removed.len() > EACH {
        info!(
            service,
            added = added.len(),
            removed = removed.len(),
            total,
            "endpoints changed"
        );
        return;
    }
    for endpoint in added {
        info!(service, %endpoint, total, "endpoint added");
    }
    for endpoint in removed {
        info!(service, %endpoint, total, "endpoint removed");
    }
}

/// Tells that picks go to endpoints that are set aside, for no other is left.
#[derive(Debug, Default)]
pub(super) struct LastResort {
    told: Option<Instant>,
}

impl LastResort {
    /// Looks at a new set. An endpoint that is set aside comes back to be tried and is soon set aside again, so this
    /// is told after [`AGAIN`] at the earliest, and its end not at all.
    pub(super) fn observe(&mut self, now: Instant, service: &str, set: &EndpointSet) {
        let endpoints = set.reachable().len();
        let is_last_resort = endpoints > 0 && set.is_ejected(0);
        if !is_last_resort || self.told.is_some_and(|told| now < told + AGAIN) {
            return;
        }
        self.told = Some(now);
        warn!(
            service,
            endpoints, "every endpoint is set aside; picks go to them all the same"
        );
    }
}

/// An outage that changes its kind is told again after this long at the earliest: two name servers that
/// fail in two ways are asked in turn.
const AGAIN: Duration = Duration::from_secs(90);

/// Tells an outage when it begins, when it turns into another, and when it ends; and once that a
/// service has no endpoints.
#[derive(Debug, Default)]
pub(super) struct Outage {
    current: Option<Told>,
    suppressed: u64,
    empty: bool,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    kind: ResolveErrorKind,
    at: Instant,
}

impl Outage {
    /// Looks at the status after an answer.
    pub(super) fn observe(&mut self, now: Instant, status: &Status) {
        let (service, endpoints) = (status.service(), status.endpoints());
        let error = status.error();
        match (status.stale_since(), error) {
            (Some(_), Some(error)) => self.goes_on(now, status, error),
            (Some(_), None) => {}
            (None, Some(error)) => {
                // Emptiness is believed: what announced it is over, another outage perhaps not.
                self.current = self
                    .current
                    .filter(|told| told.kind.is_empty() != error.is_empty());
            }
            (None, None) => {
                let suppressed = std::mem::take(&mut self.suppressed);
                if let Some(Told { kind, .. }) = self.current.take() {
                    let outage = kind.label();
                    warn!(
                        service,
                        endpoints, outage, suppressed, "resolution works again"
                    );
                }
            }
        }
        // Believed, or the first answer there is: zero pods, or a typo.
        let empty = endpoints == 0
            && status.stale_since().is_none()
            && error.is_some_and(ResolveError::is_empty);
        if empty && !self.empty {
            let error = error.map(display);
            warn!(
                service,
                error, "no endpoints: no ready pod, a missing service or a wrong name"
            );
        }
        // Told once, until there are endpoints: failures in between change nothing.
        self.empty = empty || (self.empty && endpoints == 0);
    }

    fn goes_on(&mut self, now: Instant, status: &Status, error: &ResolveError) {
        let known = self
            .current
            .is_some_and(|told| told.kind == error.kind() || now < told.at + AGAIN);
        if known {
            self.suppressed += 1;
            return;
        }
        self.current = Some(Told {
            kind: error.kind(),
            at: now,
        });
        let (service, endpoints) = (status.service(), status.endpoints());
        let cause = error.source().map(display);
        let message = match (error.is_empty(), endpoints) {
            (true, _) => "no endpoint any more, says DNS; the set stays until that is confirmed",
            (false, 0) => "resolution fails; no endpoints are known",
            (false, _) => "resolution fails; the last good set stays",
        };
        warn!(service, endpoints, %error, cause, "{message}");
    }
}

/// What became of endpoints for how requests to them or their health checks went: WARN for who goes, INFO for who comes back.
pub(super) fn health(service: &str, event: &HealthEvent) {
    match event {
        HealthEvent::Ejected {
            endpoint,
            finding,
            time,
        } => {
            warn!(service, %endpoint, why = %finding, seconds = time.as_secs_f64(), "endpoint ejected")
        }
        HealthEvent::Spared {
            endpoint,
            finding,
            why,
        } => {
            let spared = why.label();
            // Where many half fail this is news again after each success: counted, and told to who looks closely.
            debug!(service, %endpoint, why = %finding, spared, "endpoint not ejected");
        }
        HealthEvent::OnTrial { endpoint } => {
            info!(service, %endpoint, "endpoint on trial: one request at a time");
        }
        HealthEvent::Returned { endpoint } => info!(service, %endpoint, "endpoint returned"),
        HealthEvent::FailsChecks { endpoint, error } => {
            let cause = error.source().map(display);
            warn!(service, %endpoint, %error, cause, "an endpoint fails its health checks");
        }
        HealthEvent::PassesChecks { endpoint } => {
            info!(service, %endpoint, "an endpoint passes its health checks again");
        }
        HealthEvent::Panic {
            is_on: true,
            available,
            total,
        } => warn!(
            service,
            available, total, "panic: ejections are ignored, too few endpoints would remain"
        ),
        HealthEvent::Panic {
            is_on: false,
            available,
            total,
        } => info!(
            service,
            available, total, "panic over: ejections count again"
        ),
    }
}

/// What happened to the primary: WARN for what people must look at, INFO for the rest.
pub(super) fn primary(service: &str, event: &Event) {
    match event {
        Event::Accepted {
            endpoint,
            term,
            generation,
        } => {
            let term = term.map(display);
            info!(service, %endpoint, term, generation, "primary accepted");
        }
        Event::Lost { endpoint, why } => warn!(service, %endpoint, %why, "primary lost"),
        Event::Superseded { old, new } => {
            warn!(service, %old, %new, "primary superseded while it still claims to be it");
        }
        Event::StalePrimary { endpoint, why } => {
            warn!(service, %endpoint, %why, "stale primary: neither writes nor reads go there");
        }
        Event::Conflict { claimants, kept } => {
            let claimants: Vec<_> = claimants.iter().map(ToString::to_string).collect();
            let (claimants, kept) = (claimants.join(", "), kept.as_ref().map(display));
            warn!(
                service,
                claimants, kept, "several primaries, and nothing tells who came later"
            );
        }
        Event::SameTermTakeover { old, new, term } => {
            warn!(service, %old, %new, %term, "another primary in the term of the last");
        }
        Event::WrongCluster { endpoint, why } => {
            warn!(service, %endpoint, %why, "an endpoint of another cluster");
        }
        Event::Rebuilt { id } => warn!(service, %id, "the cluster was rebuilt: terms begin anew"),
        Event::Fenced { endpoint, by } => {
            warn!(service, %endpoint, %by, "the primary takes no writes")
        }
        Event::Mute { endpoint, error } => {
            let cause = error.source().map(display);
            warn!(service, %endpoint, %error, cause, "an endpoint does not talk to its probe");
        }
    }
}
