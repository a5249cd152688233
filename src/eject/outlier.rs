//! What the writer thinks of one endpoint, from how requests to it went.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::settings::Ejection;
use crate::outcome::Cause;

/// Of the requests that were in flight when it returned, at most so many may still fail without that counting
/// against it. Not all: they may be streams, which end without a word.
const STRAGGLERS: u32 = 5;

/// The standing of one endpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// `None` as long as nothing speaks against it. Boxed: of thousands hardly any has one.
    case: Option<Box<Case>>,
    /// Ejections, less one for each sweep since: so many times as long the last one took.
    multiplier: u32,
    /// Its counts at the last sweep.
    swept: Tally,
    /// Whether it would be ejected, were there no limits.
    is_spared: bool,
}

/// What is kept of one that was found.
#[derive(Clone, Copy, Debug)]
struct Case {
    finding: Finding,
    since: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Ejected {
        until: Instant,
    },
    /// Back, with one request in flight at a time.
    Trial {
        /// Its counts when it came back.
        start: Tally,
        /// So many failures are of requests from before.
        excused: u32,
    },
}

/// How many requests succeeded and failed, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) succeeded: u32,
    pub(crate) failed: u32,
}

impl Tally {
    /// What was added since.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            succeeded: self.succeeded.wrapping_sub(before.succeeded),
            failed: self.failed.wrapping_sub(before.failed),
        }
    }

    pub(super) fn total(self) -> u32 {
        self.succeeded.saturating_add(self.failed)
    }
}

/// What speaks against an endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// Why its last request failed.
    pub(crate) last: Option<Cause>,
}

/// Which rule found it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    Consecutive { failures: u32 },
    SuccessRate { percent: f64, limit: f64 },
    FailurePercentage { percent: f64, requests: u32 },
    Trial,
}

impl Rule {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Consecutive { .. } => "consecutive",
            Self::SuccessRate { .. } => "success_rate",
            Self::FailurePercentage { .. } => "failure_percentage",
            Self::Trial => "trial",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.rule {
            Rule::Consecutive { failures: 1 } => f.write_str("a failure")?,
            Rule::Consecutive { failures } => write!(f, "{failures} failures in a row")?,
            Rule::SuccessRate { percent, limit } => {
                write!(
                    f,
                    "{percent:.0} % of its requests succeeded, the others let expect {limit:.0} %"
                )?;
            }
            Rule::FailurePercentage { percent, requests } => {
                write!(f, "{percent:.0} % of {requests} requests failed")?;
            }
            Rule::Trial => f.write_str("it failed on trial")?,
        }
        match self.last {
            Some(cause) => write!(f, ", last: {cause}"),
            None => Ok(()),
        }
    }
}

/// What [`Outlier::look`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing new.
    None,
    /// It was on trial, and a request succeeded.
    Passed,
    /// It should be ejected.
    Suspect(Rule),
}

impl Outlier {
    /// Looks at its counts, and how many of its requests failed in a row.
    pub(crate) fn look(&mut self, tally: Tally, streak: u32, settings: &Ejection) -> Verdict {
        let rule = match self.case.as_ref().map(|case| case.stage) {
            // What still comes in is older than the ejection.
            Some(Stage::Ejected { .. }) => return Verdict::None,
            Some(Stage::Trial { start, excused }) => {
                let since = tally.since(start);
                if since.succeeded > 0 {
                    self.pardon();
                    return Verdict::Passed;
                }
                (since.failed > excused).then_some(Rule::Trial)
            }
            None => settings
                .row()
                .filter(|&row| streak >= row)
                .map(|_| Rule::Consecutive { failures: streak }),
        };
        match rule {
            Some(rule) => Verdict::Suspect(rule),
            None => {
                self.is_spared = false;
                Verdict::None
            }
        }
    }

    /// Sets it aside: for longer than the last time, if that was not long ago.
    pub(crate) fn eject(
        &mut self,
        now: Instant,
        finding: Finding,
        settings: &Ejection,
    ) -> Duration {
        // So that forgiving takes a bounded time too.
        if settings.time(self.multiplier) < settings.max_time {
            self.multiplier += 1;
        }
        let time = settings.time(self.multiplier);
        self.is_spared = false;
        self.case = Some(Box::new(Case {
            finding,
            since: now,
            stage: Stage::Ejected { until: now + time },
        }));
        time
    }

    /// The limits spare it; true if that is news.
    pub(crate) fn spare(&mut self) -> bool {
        !std::mem::replace(&mut self.is_spared, true)
    }

    /// Whether its time is over: then it is on trial from now on.
    pub(crate) fn expire(&mut self, now: Instant, tally: Tally, pending: u32) -> bool {
        let Some(case) = &mut self.case else {
            return false;
        };
        let is_over = matches!(case.stage, Stage::Ejected { until } if until <= now);
        if is_over {
            case.since = now;
            case.stage = Stage::Trial {
                start: tally,
                excused: pending.min(STRAGGLERS),
            };
        }
        is_over
    }

    /// Nothing speaks against it any more.
    pub(crate) fn pardon(&mut self) {
        self.case = None;
        self.is_spared = false;
    }

    /// A sweep: what was counted since the last, if it takes part, and one past ejection is forgiven. On trial
    /// nothing is: one that fails is to stay away longer.
    pub(crate) fn sweep(&mut self, tally: Tally) -> Option<Tally> {
        let interval = tally.since(std::mem::replace(&mut self.swept, tally));
        self.case.is_none().then(|| {
            self.multiplier = self.multiplier.saturating_sub(1);
            interval
        })
    }

    /// Whether a sweep has something to forgive.
    pub(crate) fn has_past(&self) -> bool {
        self.multiplier > 0
    }

    #[inline]
    pub(crate) fn is_ejected(&self) -> bool {
        self.until().is_some()
    }

    #[inline]
    pub(crate) fn is_on_trial(&self) -> bool {
        !self.is_admitted() && !self.is_ejected()
    }

    #[inline]
    pub(crate) fn is_admitted(&self) -> bool {
        self.case.is_none()
    }

    #[inline]
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.case.as_ref()?.stage {
            Stage::Ejected { until } => Some(until),
            Stage::Trial { .. } => None,
        }
    }

    /// What speaks against it, and since when it stands as it does.
    pub(crate) fn finding(&self) -> Option<(Finding, Instant)> {
        let case = self.case.as_ref()?;
        Some((case.finding, case.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CAUSE: Finding = Finding {
        rule: Rule::Trial,
        last: Some(Cause::Status(503)),
    };

    fn tally(succeeded: u32, failed: u32) -> Tally {
        Tally { succeeded, failed }
    }

    #[test]
    fn five_failures_in_a_row_are_found_and_four_are_not() {
        let settings = Ejection::new();
        let look = |streak| Outlier::default().look(tally(0, streak), streak, &settings);
        assert_eq!(look(4), Verdict::None);
        for failures in [5, 6] {
            assert_eq!(
                look(failures),
                Verdict::Suspect(Rule::Consecutive { failures })
            );
        }
        let off = Ejection::off();
        assert_eq!(
            Outlier::default().look(tally(0, 99), 99, &off),
            Verdict::None
        );
    }

    #[test]
    fn each_ejection_is_longer_up_to_300_s_and_each_sweep_forgives_one() {
        let (settings, now) = (Ejection::new(), Instant::now());
        let mut outlier = Outlier::default();
        let mut times = Vec::new();
        for _ in 0..12 {
            times.push(outlier.eject(now, CAUSE, &settings).as_secs());
            assert_eq!(
                outlier.sweep(tally(0, 0)),
                None,
                "ejected: nothing is forgiven"
            );
        }
        assert_eq!(
            times,
            [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]
        );
        outlier.pardon();
        for _ in 0..3 {
            assert!(outlier.sweep(tally(0, 0)).is_some());
        }
        assert_eq!(outlier.eject(now, CAUSE, &settings), 240 * SECOND);
        outlier.pardon();
        for _ in 0..20 {
            assert!(outlier.sweep(tally(0, 0)).is_some());
        }
        assert!(!outlier.has_past());
        assert_eq!(outlier.eject(now, CAUSE, &settings), 30 * SECOND);
    }

    #[test]
    fn a_base_time_above_the_longest_is_the_longest() {
        let settings = Ejection::new().base_time(400 * SECOND).bounded();
        let mut outlier = Outlier::default();
        for _ in 0..3 {
            assert_eq!(
                outlier.eject(Instant::now(), CAUSE, &settings),
                400 * SECOND
            );
        }
    }

    #[test]
    fn on_trial_the_first_outcome_decides() {
        let (settings, now) = (Ejection::new(), Instant::now());
        let mut outlier = Outlier::default();
        outlier.eject(now, CAUSE, &settings);
        assert!(!outlier.expire(now + 29 * SECOND, tally(7, 5), 0));
        // Stragglers while it is away change nothing.
        assert_eq!(outlier.look(tally(7, 9), 9, &settings), Verdict::None);
        let mut on_trial = outlier;
        assert!(on_trial.expire(now + 30 * SECOND, tally(7, 9), 0));
        assert!(on_trial.is_on_trial());
        assert_eq!(
            on_trial.look(tally(7, 9), 9, &settings),
            Verdict::None,
            "old failures"
        );
        let mut fails = on_trial.clone();
        assert_eq!(
            fails.look(tally(7, 10), 1, &settings),
            Verdict::Suspect(Rule::Trial)
        );
        assert!(fails.sweep(tally(7, 10)).is_none(), "not forgiven on trial");
        assert_eq!(fails.eject(now, CAUSE, &settings), 60 * SECOND);
        assert_eq!(on_trial.look(tally(8, 9), 0, &settings), Verdict::Passed);
        assert!(on_trial.is_admitted());
    }

    #[test]
    fn failures_of_requests_from_before_the_ejection_are_excused_on_trial() {
        let (settings, now) = (Ejection::new(), Instant::now());
        for (pending, excused) in [(0, 0), (2, 2), (100, 5)] {
            let mut outlier = Outlier::default();
            outlier.eject(now, CAUSE, &settings);
            outlier.expire(now + 30 * SECOND, tally(0, 5), pending);
            assert_eq!(
                outlier.look(tally(0, 5 + excused), 0, &settings),
                Verdict::None
            );
            let one_more = outlier.look(tally(0, 6 + excused), 0, &settings);
            assert_eq!(one_more, Verdict::Suspect(Rule::Trial));
        }
    }

    #[test]
    fn counts_go_around() {
        let before = tally(u32::MAX - 1, u32::MAX);
        assert_eq!(tally(3, 0).since(before), tally(5, 1));
    }

    #[test]
    fn findings_read_well() {
        let read = |rule| {
            Finding {
                rule,
                last: Some(Cause::Refused),
            }
            .to_string()
        };
        assert_eq!(
            read(Rule::Consecutive { failures: 5 }),
            "5 failures in a row, last: connection refused"
        );
        assert_eq!(
            read(Rule::FailurePercentage {
                percent: 91.66,
                requests: 120
            }),
            "92 % of 120 requests failed, last: connection refused"
        );
        assert_eq!(
            read(Rule::SuccessRate {
                percent: 50.0,
                limit: 52.2
            }),
            "50 % of its requests succeeded, the others let expect 52 %, last: connection refused"
        );
    }
}
