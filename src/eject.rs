//! Setting pods aside: for what is certain, and for what is likely.
//!
//! [`Connectivity`] is certain: a pod that refuses a connect will refuse the next one too. [`Outlier`] is an
//! opinion, formed from how requests went, so there are [limits](Crowd) to what it may do. Pure code: the
//! registry brings the clock and the counters.

mod connectivity;
mod limits;
mod outlier;
mod settings;
mod sweep;

pub(crate) use connectivity::{Connectivity, Connects, Update};
pub(crate) use limits::{Crowd, Unenforced};
pub(crate) use outlier::{Finding, Outlier, Rule, Tally, Verdict};
pub use settings::Ejection;
pub(crate) use sweep::Sweep;
