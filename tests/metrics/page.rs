//! A recorder of the test's own, and its page.

use std::collections::{BTreeMap, BTreeSet};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

/// The service of the scripts.
const SERVICE: &str = "web.default";

/// What the balancers tell that are built while it listens.
pub(crate) struct Recorded {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// The page that an exporter would serve.
#[derive(Debug)]
pub(crate) struct Page {
    help: BTreeMap<String, String>,
    /// By name and labels.
    series: BTreeMap<(String, Vec<(String, String)>), f64>,
}

impl Recorded {
    pub(crate) fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        Self { recorder, handle }
    }

    /// Handles are looked up when a balancer is built, and stay with this recorder.
    pub(crate) fn while_building<T>(&self, build: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, build)
    }

    pub(crate) fn page(&self) -> Page {
        self.handle.run_upkeep();
        Page::parse(&self.handle.render())
    }
}

impl Page {
    fn parse(text: &str) -> Self {
        let (mut help, mut series) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, text) = rest.split_once(' ').expect("a help text");
                help.insert(name.to_owned(), text.to_owned());
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = key.split_once('{').expect("labels");
            let labels = labels.trim_end_matches('}').split(',').map(|label| {
                let (key, value) = label.split_once('=').expect("a label");
                (key.to_owned(), value.trim_matches('"').to_owned())
            });
            let value = value.parse().expect("a number");
            series.insert((name.to_owned(), labels.collect()), value);
        }
        Self { help, series }
    }

    pub(crate) fn help(&self, name: &str) -> Option<&str> {
        self.help.get(name).map(String::as_str)
    }

    /// All series of all services, each with its own label; a distribution is one.
    pub(crate) fn series(&self) -> BTreeSet<(String, Option<String>)> {
        let one = |(name, labels): &(String, Vec<(String, String)>)| {
            let name = ["_sum", "_count"]
                .iter()
                .find_map(|end| {
                    name.strip_suffix(end)
                        .filter(|name| self.help.contains_key(*name))
                })
                .unwrap_or(name);
            let own = |(key, _): &&(String, String)| key != "service" && key != "quantile";
            let own = labels.iter().find(own);
            (
                name.to_owned(),
                own.map(|(key, value)| format!("{key}={value}")),
            )
        };
        self.series.keys().map(one).collect()
    }

    /// Its values in all services whose names begin like this one's.
    pub(crate) fn all(&self, name: &str) -> Vec<f64> {
        let is_it = |labels: &[(String, String)]| {
            labels.iter().all(|(_, value)| value.starts_with(SERVICE))
        };
        let own = self
            .series
            .iter()
            .filter(|((own, labels), _)| own == name && is_it(labels));
        own.map(|(_, value)| *value).collect()
    }

    /// The value of a metric without a label of its own.
    pub(crate) fn value(&self, name: &str) -> f64 {
        let labels = vec![("service".to_owned(), SERVICE.to_owned())];
        let value = self.series.get(&(name.to_owned(), labels));
        *value.unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }

    /// The value with that of its label.
    pub(crate) fn with(&self, name: &str, value: &str) -> f64 {
        self.of(SERVICE, name, value)
    }

    pub(crate) fn of(&self, service: &str, name: &str, value: &str) -> f64 {
        let has = |labels: &[(String, String)], wanted: &str| {
            labels.iter().any(|(_, value)| value == wanted)
        };
        let found = self
            .series
            .iter()
            .find(|((own, labels), _)| own == name && has(labels, service) && has(labels, value));
        *found
            .unwrap_or_else(|| panic!("no {name} of {service} with {value} in {self:#?}"))
            .1
    }

    /// The sum over all values of its label.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let own = self.series.iter().filter(|((own, _), _)| own == name);
        own.map(|(_, value)| value).sum()
    }

    /// These values of its label, and zero for all others.
    #[track_caller]
    pub(crate) fn only<const N: usize>(&self, name: &str, expected: [(&str, f64); N]) {
        let moved: BTreeMap<&str, f64> = self
            .series
            .iter()
            .filter(|((own, _), value)| own == name && **value != 0.0)
            .map(|((_, labels), value)| {
                let (_, label) = labels
                    .iter()
                    .find(|(key, _)| key != "service")
                    .expect("a label");
                (label.as_str(), *value)
            })
            .collect();
        assert_eq!(moved, BTreeMap::from(expected), "{name}");
    }
}
