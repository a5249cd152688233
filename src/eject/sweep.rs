//! The comparison of pods at the end of an interval (gRPC A50, Envoy).

use super::{
    outlier::{Rule, Tally},
    settings::{Ejection, PERCENTAGE_REQUESTS, PODS, RATE_REQUESTS},
};

/// Percent that are no difference: the mean of equal rates may be off by rounding.
const ROUNDING: f64 = 1e-9;

/// What the rules measure all pods against: computed from all first, then asked for each.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sweep {
    /// Below this percentage of successes a pod is too bad; `None` if there is nothing to compare.
    least_success: Option<f64>,
    /// Above this percentage of failures.
    most_failures: Option<f64>,
}

impl Sweep {
    /// From what each pod that takes part counted in the interval.
    ///
    /// The standard deviation is that of the whole population, as in Envoy. A50 needs five pods for the
    /// percentage whatever their volumes, Envoy five with the volume; this is Envoy's.
    pub(crate) fn of(
        settings: &Ejection,
        intervals: &(impl Iterator<Item = Tally> + Clone),
    ) -> Self {
        let with = |requests: u32| {
            intervals
                .clone()
                .filter(move |interval| interval.total() >= requests)
        };
        let enough = |count: usize| (count >= PODS).then_some(());
        Self {
            least_success: settings.success_rate.and_then(|deviations| {
                let rates = with(RATE_REQUESTS).map(success);
                let count = rates.clone().count();
                enough(count)?;
                let mean = rates.clone().sum::<f64>() / count as f64;
                let variance = rates.map(|rate| (rate - mean).powi(2)).sum::<f64>() / count as f64;
                Some(mean - deviations * variance.sqrt())
            }),
            most_failures: settings
                .failure_percentage
                .filter(|_| enough(with(PERCENTAGE_REQUESTS).count()).is_some()),
        }
    }

    /// What it finds in one of them.
    pub(crate) fn judge(&self, interval: Tally) -> Option<Rule> {
        let requests = interval.total();
        let success = success(interval);
        if let Some(limit) = self.least_success.filter(|_| requests >= RATE_REQUESTS)
            && success < limit - ROUNDING
        {
            return Some(Rule::SuccessRate {
                percent: success,
                limit,
            });
        }
        let failures = 100.0 - success;
        let limit = self.most_failures?;
        (requests >= PERCENTAGE_REQUESTS && failures > limit).then_some(Rule::FailurePercentage {
            percent: failures,
            requests,
        })
    }
}

/// In percent.
fn success(interval: Tally) -> f64 {
    f64::from(interval.succeeded) / f64::from(interval.total()) * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a50() -> Ejection {
        Ejection::off().success_rate(1.9)
    }

    fn percentage() -> Ejection {
        Ejection::off().failure_percentage(85.0)
    }

    /// Which of these are found: pairs of successes and requests.
    fn found(settings: &Ejection, pods: &[(u32, u32)]) -> Vec<usize> {
        let interval = |&(succeeded, requests): &(u32, u32)| Tally {
            succeeded,
            failed: requests - succeeded,
        };
        let sweep = Sweep::of(settings, &pods.iter().map(interval));
        let judged = pods.iter().map(|pod| sweep.judge(interval(pod)));
        judged
            .enumerate()
            .filter_map(|(i, rule)| rule.map(|_| i))
            .collect()
    }

    /// `bad` pods that fail everything, the others nothing.
    fn of(n: usize, bad: usize, requests: u32) -> Vec<(u32, u32)> {
        (0..n)
            .map(|i| {
                if i < bad {
                    (0, requests)
                } else {
                    (requests, requests)
                }
            })
            .collect()
    }

    #[test]
    fn the_limit_is_the_mean_less_deviations_of_the_whole_population() {
        // Envoy's example: rates of 50 and four times 100 have mean 90, deviation 20, limit 52.
        let pods = [(50, 100), (100, 100), (100, 100), (100, 100), (100, 100)];
        let interval = |(succeeded, requests): (u32, u32)| Tally {
            succeeded,
            failed: requests - succeeded,
        };
        let sweep = Sweep::of(&a50(), &pods.into_iter().map(interval));
        assert!((sweep.least_success.unwrap() - 52.0).abs() < 1e-9);
        assert_eq!(found(&a50(), &pods), [0]);
        assert_eq!(
            sweep.judge(interval((50, 100))),
            Some(Rule::SuccessRate {
                percent: 50.0,
                limit: sweep.least_success.unwrap()
            })
        );
    }

    #[test]
    fn the_success_rate_finds_outliers_among_five_and_more_pods_and_at_most_every_fifth() {
        // n, how many fail everything, how many are found.
        let table = [
            (1, 1, 0),
            (2, 1, 0),
            (3, 1, 0),
            (4, 1, 0),
            (5, 1, 1),
            (10, 1, 1),
            (10, 2, 2),
            (10, 3, 0),
            (11, 2, 2),
            (20, 4, 4),
            (20, 5, 0),
            (20, 20, 0),
        ];
        for (n, bad, count) in table {
            assert_eq!(found(&a50(), &of(n, bad, 100)).len(), count, "{bad} of {n}");
        }
    }

    #[test]
    fn the_failure_percentage_finds_each_above_the_limit_among_five_and_more() {
        let table = [
            (1, 1, 0),
            (2, 2, 0),
            (3, 3, 0),
            (5, 1, 1),
            (10, 9, 9),
            (11, 11, 11),
            (20, 0, 0),
        ];
        for (n, bad, count) in table {
            assert_eq!(
                found(&percentage(), &of(n, bad, 50)).len(),
                count,
                "{bad} of {n}"
            );
        }
        // 85 % is not above it, 86 is.
        let mut pods = of(5, 0, 100);
        (pods[0], pods[1]) = ((15, 100), (14, 100));
        assert_eq!(found(&percentage(), &pods), [1]);
    }

    #[test]
    fn a_pod_with_few_requests_is_neither_compared_nor_found() {
        // Four with the volume: too few, whatever the fifth does.
        let mut pods = of(5, 1, 100);
        pods[4] = (99, 99);
        assert!(found(&a50(), &pods).is_empty());
        // Six: the bad one without the volume stays.
        let mut pods = of(6, 1, 100);
        pods[0] = (0, 99);
        assert!(found(&a50(), &pods).is_empty());
        let mut pods = of(6, 1, 50);
        pods[0] = (0, 49);
        assert!(found(&percentage(), &pods).is_empty());
        assert!(
            found(&percentage(), &of(5, 0, 0)).is_empty(),
            "no requests at all"
        );
    }

    #[test]
    fn equal_pods_are_never_found_however_bad() {
        for rate in [0, 1, 50, 99, 100] {
            assert!(found(&a50(), &[(rate, 100); 20]).is_empty(), "{rate} %");
        }
    }

    #[test]
    fn equal_pods_are_not_found_by_rounding_either() {
        for (n, succeeded) in (5..40).flat_map(|n| (0..=101).map(move |s| (n, s))) {
            for deviations in [0.0, 0.5, 1.0, 1.9] {
                let settings = Ejection::off().success_rate(deviations);
                let found = found(&settings, &vec![(succeeded, 101); n]);
                assert!(found.is_empty(), "{n} of {succeeded}, {deviations}");
            }
        }
    }

    #[test]
    fn what_is_off_finds_nothing() {
        assert!(found(&Ejection::new(), &of(20, 1, 1000)).is_empty());
    }
}
