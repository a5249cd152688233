//! A resolver behind a pointer, and a limit on its patience.

use std::{future::Future, pin::Pin, time::Duration};

use tokio::time::timeout;

use super::{Resolution, Resolve, ResolveError, ResolveErrorKind};

/// A question that takes longer counts as failed: a source that hangs must not end discovery. `Dns`
/// has a deadline of its own, 5 s.
const RESOLVE_BACKSTOP: Duration = Duration::from_secs(30);

/// A question under way.
type Asked<'a> = Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + 'a>>;

/// A [`Resolve`] behind a pointer, so that the handle's type does not name it. One allocation a
/// question.
pub(crate) trait Source: Send + Sync + 'static {
    fn ask(&self) -> Asked<'_>;
}

impl<R: Resolve> Source for R {
    fn ask(&self) -> Asked<'_> {
        Box::pin(async {
            timeout(RESOLVE_BACKSTOP, self.resolve())
                .await
                .unwrap_or_else(|elapsed| {
                    Err(ResolveError::of(ResolveErrorKind::Timeout).caused_by(elapsed))
                })
        })
    }
}
