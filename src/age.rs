//! How long ago something was, for people.

use std::{fmt, time::Duration};

use tokio::time::Instant;

/// Time since an instant, in the unit that people would use.
pub(crate) struct Ago(pub(crate) Instant);

impl fmt::Display for Ago {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Span(self.0.elapsed()).fmt(f)
    }
}

/// A length of time, in that unit.
pub(crate) struct Span(pub(crate) Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs_f64();
        let text = match seconds {
            s if s < 10.0 => format!("{s:.1} s"),
            s if s < 120.0 => format!("{s:.0} s"),
            s if s < 7200.0 => format!("{:.0} min", s / 60.0),
            s => format!("{:.0} h", s / 3600.0),
        };
        f.pad(&text)
    }
}
