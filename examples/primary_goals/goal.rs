//! A line of the table: what was to be reached, and what was.

use std::{error::Error, iter::successors, time::Duration};

/// One measured goal.
#[derive(Debug)]
pub(crate) struct Goal {
    pub(crate) number: u32,
    pub(crate) what: &'static str,
    pub(crate) target: &'static str,
    pub(crate) measured: String,
    pub(crate) is_met: bool,
}

impl Goal {
    /// Its measurement failed.
    pub(crate) fn unmeasured(number: u32, error: &(dyn Error + 'static)) -> Self {
        let causes = successors(Some(error), |&error| error.source());
        let causes: Vec<String> = causes.map(ToString::to_string).collect();
        Self {
            number,
            what: "not measured",
            target: "-",
            measured: causes.join(": "),
            is_met: false,
        }
    }

    /// The number as people say it.
    pub(crate) fn name(&self) -> String {
        format!("G{}", self.number)
    }
}

/// Times, in order.
#[derive(Debug)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    pub(crate) fn median(&self) -> Option<Duration> {
        self.quantile(0.5)
    }

    /// The worst of fewer than 100.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.quantile(0.99)
    }

    pub(crate) fn worst(&self) -> Option<Duration> {
        self.0.last().copied()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Median, p99 and how many there are, in milliseconds.
    pub(crate) fn in_ms(&self) -> String {
        match self.median().zip(self.p99()) {
            Some((median, p99)) => {
                let (median, p99) = (ms(median), ms(p99));
                format!("{median:.0} ms, p99 {p99:.0} ms, n {}", self.len())
            }
            None => "nothing".to_owned(),
        }
    }

    /// The nearest rank.
    fn quantile(&self, share: f64) -> Option<Duration> {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        self.0.get(rank.max(1) - 1).copied()
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Self {
        let mut times: Vec<_> = times.into_iter().collect();
        times.sort();
        Self(times)
    }
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

pub(crate) fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Whether it was measured, and within the limit.
pub(crate) fn within(time: Option<Duration>, limit: Duration) -> bool {
    time.is_some_and(|time| time <= limit)
}
