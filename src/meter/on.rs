//! The handles of one service, looked up once.

use std::{fmt, sync::Arc, time::Duration};

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, Unit,
    with_recorder,
};

use super::{
    Picked, States,
    picks::Picks,
    table::{self, Kind, METRICS, Metric},
};

/// Where a service's metrics go. Clones share the handles.
#[derive(Clone)]
pub(crate) struct Meter(Arc<Handles>);

struct Handles {
    picked: Picks,
    picks: Family<Counter>,
    no_endpoint: Family<Counter>,
    resolve: Family<Counter>,
    resolve_seconds: Histogram,
    set_age: Gauge,
    set_hash: Gauge,
    stale: Gauge,
    endpoints: Family<Gauge>,
    added: Counter,
    removed: Counter,
    primary_changes: Counter,
    ejections: Family<Counter>,
    unenforced: Family<Counter>,
    retries: Family<Counter>,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "of the HTTP client")
    )]
    http: Http,
}

/// What only the HTTP client counts; at zero without it, so that one list holds for all services.
#[cfg_attr(
    not(feature = "http"),
    expect(dead_code, reason = "of the HTTP client")
)]
struct Http {
    connects: Family<Counter>,
    disconnects: Family<Counter>,
    retry_refused: Counter,
    hedges: Counter,
}

/// A metric with a label: a handle for each value, in the order of the list.
struct Family<H> {
    values: &'static [&'static str],
    handles: Box<[H]>,
}

impl<H> Family<H> {
    /// A value that is not in the list counts as the last one.
    fn of(&self, value: &str) -> &H {
        let place = self.values.iter().position(|known| *known == value);
        debug_assert!(place.is_some(), "{value} is not in the list");
        &self.handles[place.unwrap_or(self.handles.len() - 1)]
    }
}

impl Meter {
    pub(crate) const IS_ON: bool = true;

    pub(crate) fn new(service: &str) -> Self {
        let service: SharedString = service.to_owned().into();
        with_recorder(|recorder| {
            // For each service anew: the recorder may be another one by now, and it costs nothing to say again.
            METRICS.iter().for_each(|metric| describe(recorder, metric));
            let new = Registering { recorder, service };
            Self(Arc::new(Handles {
                picked: Picks::default(),
                picks: new.counters(&table::PICKS),
                no_endpoint: new.counters(&table::NO_ENDPOINT),
                resolve: new.counters(&table::RESOLVE),
                resolve_seconds: new.histogram(&table::RESOLVE_SECONDS),
                set_age: new.gauge(&table::SET_AGE),
                set_hash: new.gauge(&table::SET_HASH),
                stale: new.gauge(&table::STALE),
                endpoints: new.gauges(&table::ENDPOINTS),
                added: new.counter(&table::ADDED),
                removed: new.counter(&table::REMOVED),
                primary_changes: new.counter(&table::PRIMARY_CHANGES),
                ejections: new.counters(&table::EJECTIONS),
                unenforced: new.counters(&table::UNENFORCED),
                retries: new.counters(&table::RETRIES),
                http: Http {
                    connects: new.counters(&table::CONNECTS),
                    disconnects: new.counters(&table::DISCONNECTS),
                    retry_refused: new.counter(&table::RETRY_REFUSED),
                    hedges: new.counter(&table::HEDGES),
                },
            }))
        })
    }

    /// Something was picked. The recorder hears of it at the next [`state`](Self::state).
    #[inline]
    pub(crate) fn picked(&self, kind: Picked) {
        self.0.picked.add(kind);
    }

    /// A request found nothing to try.
    #[cold]
    pub(crate) fn no_endpoint(&self, why: &'static str) {
        self.0.no_endpoint.of(why).increment(1);
    }

    /// The source answered.
    pub(crate) fn answered(&self, result: &'static str, took: Duration) {
        self.0.resolve.of(result).increment(1);
        self.0.resolve_seconds.record(took.as_secs_f64());
    }

    /// A set was published: so many endpoints are new, so many have left, and the hash of all.
    pub(crate) fn changed(&self, added: usize, removed: usize, hash: u32) {
        self.0.added.increment(added as u64);
        self.0.removed.increment(removed as u64);
        self.0.set_hash.set(f64::from(hash));
    }

    pub(crate) fn primary_changed(&self, times: u64) {
        self.0.primary_changes.increment(times);
    }

    /// An endpoint is taken out of the picks for what its requests came to.
    pub(crate) fn ejected(&self, rule: &'static str) {
        self.0.ejections.of(rule).increment(1);
    }

    /// It would have been, if it were not for this.
    pub(crate) fn unenforced(&self, reason: &'static str) {
        self.0.unenforced.of(reason).increment(1);
    }

    /// How things are now; and what was picked since the last time.
    pub(crate) fn state(&self, age: Duration, is_stale: bool, states: States) {
        let States {
            available,
            ejected,
            aside,
            rejected,
            warming,
            draining,
        } = states;
        self.0.set_age.set(age.as_secs_f64());
        self.0.stale.set(f64::from(u8::from(is_stale)));
        let numbers = [available, ejected, aside, rejected, warming, draining];
        for (gauge, number) in self.0.endpoints.handles.iter().zip(numbers) {
            gauge.set(number as f64);
        }
        self.0.tell_picks();
    }

    /// A request goes on to another pod.
    #[cold]
    pub(crate) fn retried(&self, was_sent: bool) {
        self.0.retries.handles[usize::from(was_sent)].increment(1);
    }
}

#[cfg(feature = "http")]
impl Meter {
    /// A connect ended.
    pub(crate) fn connected(&self, result: &'static str) {
        self.0.http.connects.of(result).increment(1);
    }

    /// A connection ended.
    pub(super) fn disconnected(&self, reason: &'static str) {
        self.0.http.disconnects.of(reason).increment(1);
    }

    /// The budget is spent.
    #[cold]
    pub(crate) fn retry_refused(&self) {
        self.0.http.retry_refused.increment(1);
    }

    /// A late request goes to another pod as well.
    #[cold]
    pub(crate) fn hedged(&self) {
        self.0.http.hedges.increment(1);
    }
}

impl Handles {
    fn tell_picks(&self) {
        for (counter, count) in self.picks.handles.iter().zip(self.picked.take()) {
            if count > 0 {
                counter.increment(count);
            }
        }
    }
}

impl Drop for Handles {
    /// What was picked since the driver's last turn.
    fn drop(&mut self) {
        self.tell_picks();
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meter")
    }
}

fn describe(recorder: &dyn Recorder, metric: &Metric) {
    let (name, help) = (metric.name.into(), metric.help.into());
    // A plain number needs no unit: some exporters would put it into the name.
    let unit = Some(metric.unit).filter(|unit| *unit != Unit::Count);
    match metric.kind {
        Kind::Counter => recorder.describe_counter(name, unit, help),
        Kind::Gauge => recorder.describe_gauge(name, unit, help),
        Kind::Histogram => recorder.describe_histogram(name, unit, help),
    }
}

/// What the recorder is told of each metric that it registers.
const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

struct Registering<'a> {
    recorder: &'a dyn Recorder,
    service: SharedString,
}

impl Registering<'_> {
    fn key(&self, metric: &Metric, value: Option<&'static str>) -> Key {
        let service = Label::new("service", self.service.clone());
        let other = metric.label.zip(value);
        let labels = other.map(|(label, value)| Label::from_static_parts(label, value));
        Key::from_parts(
            metric.name,
            [service].into_iter().chain(labels).collect::<Vec<_>>(),
        )
    }

    fn counter(&self, metric: &Metric) -> Counter {
        self.recorder
            .register_counter(&self.key(metric, None), &METADATA)
    }

    fn gauge(&self, metric: &Metric) -> Gauge {
        self.recorder
            .register_gauge(&self.key(metric, None), &METADATA)
    }

    fn histogram(&self, metric: &Metric) -> Histogram {
        self.recorder
            .register_histogram(&self.key(metric, None), &METADATA)
    }

    fn counters(&self, metric: &Metric) -> Family<Counter> {
        self.family(metric, |key| self.recorder.register_counter(key, &METADATA))
    }

    fn gauges(&self, metric: &Metric) -> Family<Gauge> {
        self.family(metric, |key| self.recorder.register_gauge(key, &METADATA))
    }

    fn family<H>(&self, metric: &Metric, register: impl Fn(&Key) -> H) -> Family<H> {
        let values = metric.values.iter();
        Family {
            values: metric.values,
            handles: values
                .map(|value| register(&self.key(metric, Some(value))))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn ejections_are_counted_by_their_rule_and_those_not_made_by_what_kept_them() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let meter = metrics::with_local_recorder(&recorder, || Meter::new("web"));
        for rule in ["consecutive", "consecutive", "success_rate"] {
            meter.ejected(rule);
        }
        meter.unenforced("cap");
        let page = recorder.handle().render();
        let line = |name: &str, label: &str| {
            let start = format!("{name}{{service=\"web\",{label}}} ");
            let value = page.lines().find_map(|line| line.strip_prefix(&*start));
            value.map(str::to_owned)
        };
        let ejections = |rule| line("headless_lb_ejections_total", &format!("rule=\"{rule}\""));
        assert_eq!(ejections("consecutive").as_deref(), Some("2"));
        assert_eq!(ejections("success_rate").as_deref(), Some("1"));
        assert_eq!(ejections("failure_percentage").as_deref(), Some("0"));
        let kept = |reason| {
            let label = format!("reason=\"{reason}\"");
            line("headless_lb_ejections_unenforced_total", &label)
        };
        assert_eq!(kept("cap").as_deref(), Some("1"));
        assert_eq!(kept("last").as_deref(), Some("0"));
    }
}
