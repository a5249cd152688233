//! What is said aloud: set changes, and outages once.

use std::error::Error;

use tokio::time::Instant;
use tracing::{field::display, info, warn};

use crate::{
    registry::{Ago, Published, Status},
    resolve::ResolveErrorKind,
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

/// Tells an outage when it begins, when its kind changes, and when it ends; not in between.
#[derive(Debug, Default)]
pub(super) struct Outage {
    current: Option<(ResolveErrorKind, Instant)>,
    suppressed: u64,
}

impl Outage {
    /// Looks at the status after an answer.
    pub(super) fn observe(&mut self, status: &Status) {
        let (service, endpoints) = (status.service(), status.endpoints());
        match (status.stale_since(), status.error(), self.current) {
            (Some(since), Some(error), current) => {
                if current.is_some_and(|(kind, _)| kind == error.kind()) {
                    self.suppressed += 1;
                    return;
                }
                self.current = Some((error.kind(), since));
                let cause = error.source().map(display);
                let message = match (error.is_empty(), endpoints) {
                    (true, _) => {
                        "no endpoint any more, says DNS; the set stays until that is confirmed"
                    }
                    (false, 0) => "resolution fails; no endpoints are known",
                    (false, _) => "resolution fails; the last good set stays",
                };
                warn!(service, endpoints, %error, cause, "{message}");
            }
            (None, _, Some((kind, since))) => {
                self.current = None;
                let (outage, suppressed) = (kind.label(), std::mem::take(&mut self.suppressed));
                warn!(
                    service,
                    endpoints,
                    outage,
                    suppressed,
                    "the outage that began {} ago is over",
                    Ago(since)
                );
            }
            _ => {}
        }
    }
}
