//! What the checks of one endpoint amount to.

use std::sync::Arc;

use tokio::time::Instant;

use crate::probe::ProbeError;

/// The health of one endpoint: it takes several results in a row to change it.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    /// Results in a row that contradict what it is.
    row: u32,
    /// `None` while it is healthy, which it is at first.
    unhealthy: Option<Box<Unhealthy>>,
}

/// Since when, and what the last failure was.
#[derive(Clone, Debug)]
pub(crate) struct Unhealthy {
    pub(crate) since: Instant,
    pub(crate) error: Arc<ProbeError>,
}

impl Checked {
    /// Counts one result. True if the endpoint is healthy or unhealthy only now.
    pub(crate) fn update(
        &mut self,
        now: Instant,
        result: Result<(), ProbeError>,
        rise: u32,
        fall: u32,
    ) -> bool {
        let (needed, speaks_against) = match &self.unhealthy {
            None => (fall, result.is_err()),
            Some(_) => (rise, result.is_ok()),
        };
        self.row = if speaks_against { self.row + 1 } else { 0 };
        let is_news = speaks_against && self.row >= needed;
        if is_news {
            self.row = 0;
        }
        match (result, &mut self.unhealthy) {
            (Ok(()), unhealthy) if is_news => *unhealthy = None,
            (Err(error), Some(unhealthy)) => unhealthy.error = Arc::new(error),
            (Err(error), healthy) if is_news => {
                let error = Arc::new(error);
                *healthy = Some(Box::new(Unhealthy { since: now, error }));
            }
            _ => {}
        }
        is_news
    }

    /// Why it is unhealthy, if it is.
    #[inline]
    pub(crate) fn unhealthy(&self) -> Option<&Unhealthy> {
        self.unhealthy.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, time::Duration};

    use super::*;

    /// `+` for a success and `-` for a failure; the health after each, `h` or `u`.
    fn after(results: &str, rise: u32, fall: u32) -> String {
        let mut checked = Checked::default();
        let start = Instant::now();
        let mut was_healthy = true;
        let update = |(i, c): (usize, char)| {
            let result = match c {
                '+' => Ok(()),
                _ => Err(ProbeError::passing(format!("failure {i}"))),
            };
            let now = start + Duration::from_secs(i as u64);
            let is_news = checked.update(now, result, rise, fall);
            let is_healthy = checked.unhealthy().is_none();
            assert_eq!(is_news, is_healthy != was_healthy, "{results}, {i}");
            was_healthy = is_healthy;
            if is_healthy { 'h' } else { 'u' }
        };
        results.chars().enumerate().map(update).collect()
    }

    #[test]
    fn health_changes_after_so_many_results_in_a_row() {
        assert_eq!(after("---", 2, 3), "hhu");
        assert_eq!(after("--+---", 2, 3), "hhhhhu");
        assert_eq!(after("---++", 2, 3), "hhuuh");
        assert_eq!(after("---+-+-++", 2, 3), "hhuuuuuuh");
        assert_eq!(after("---++--+", 2, 3), "hhuuhhhh");
        assert_eq!(after("---++---", 2, 3), "hhuuhhhu");
    }

    #[test]
    fn one_result_is_enough_where_that_is_wanted() {
        assert_eq!(after("+-+-", 1, 1), "huhu");
        assert_eq!(after("-++", 2, 1), "uuh");
    }

    #[test]
    fn it_knows_since_when_and_the_last_failure() {
        let (start, mut checked) = (Instant::now(), Checked::default());
        for i in 0..5 {
            let now = start + Duration::from_secs(i);
            checked.update(now, Err(ProbeError::passing(format!("failure {i}"))), 2, 3);
        }
        let unhealthy = checked.unhealthy().unwrap();
        assert_eq!(unhealthy.since, start + Duration::from_secs(2));
        let source = unhealthy.error.source().unwrap().to_string();
        assert_eq!(source, "failure 4");
    }
}
