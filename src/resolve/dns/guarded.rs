//! State shared by clones of a source, off the request path.

use std::{fmt, sync::PoisonError};

#[expect(
    clippy::disallowed_types,
    reason = "one short section per resolution, never on the request path; the closure of `with` cannot hold it over an await"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// A value behind a lock that ends with the closure.
#[derive(Default)]
pub(super) struct Guarded<T>(Mutex<T>);

impl<T> Guarded<T> {
    pub(super) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        // The values are replaced whole, so one left by a panic is as good as any.
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}
