//! Without the feature `metrics`: nothing, of no size.

use std::time::Duration;

use super::{Picked, States};

#[derive(Clone, Debug)]
pub(crate) struct Meter;

impl Meter {
    pub(crate) const IS_ON: bool = false;

    pub(crate) fn new(_: &str) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn picked(&self, _: Picked) {}

    #[inline]
    pub(crate) fn no_endpoint(&self, _: &'static str) {}

    pub(crate) fn answered(&self, _: &'static str, _: Duration) {}

    pub(crate) fn changed(&self, _: usize, _: usize, _: u32) {}

    pub(crate) fn ejected(&self, _: &'static str) {}

    pub(crate) fn unenforced(&self, _: &'static str) {}

    pub(crate) fn primary_changed(&self, _: u64) {}

    pub(crate) fn state(&self, _: Duration, _: bool, _: States) {}

    #[inline]
    pub(crate) fn retried(&self, _was_sent: bool) {}
}

#[cfg(feature = "http")]
mod http {
    use std::io;

    use tokio::time::Instant;

    use super::Meter;

    impl Meter {
        pub(crate) fn connected(&self, _: &'static str) {}

        #[inline]
        pub(crate) fn retry_refused(&self) {}

        #[inline]
        pub(crate) fn hedged(&self) {}
    }

    #[derive(Debug, Default)]
    pub(crate) struct Ending;

    impl Ending {
        pub(crate) fn established(&self, _: &Meter, _: Option<Instant>) {}

        #[inline]
        pub(crate) fn begin(&self) {}

        #[inline]
        pub(crate) fn end(&self) {}

        #[inline]
        pub(crate) fn closed(&self) {}

        #[cfg(feature = "http2")]
        pub(crate) fn let_go(&self) {}

        #[inline]
        pub(crate) fn cut(&self) {}

        pub(crate) fn went_wrong(&self) {}

        #[inline]
        pub(crate) fn closed_by_pod(&self) {}

        #[inline]
        pub(crate) fn failed(&self, _: &io::Error) {}

        pub(crate) fn broke(&self) {}

        #[cfg(feature = "http2")]
        pub(crate) fn unanswered(&self) {}

        #[inline]
        pub(crate) fn draining(&self, _: bool) {}

        #[inline]
        pub(crate) fn silent(&self) {}
    }
}

#[cfg(feature = "http")]
pub(crate) use http::Ending;
