//! One situation: how many pods and clients, what they do, how long it is watched.

use super::{
    engine::{MICRO, MILLI, Nanos, SECOND},
    incident::Incident,
    subsets::Subset,
    traffic::{Rates, Work},
};

/// A situation to run contestants through.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    pub(crate) clients: u32,
    pub(crate) pods: u32,
    /// Which pods each client uses, if not all.
    pub(crate) subset: Option<Subset>,
    /// Workers of a pod.
    pub(crate) workers: u32,
    pub(crate) work: Work,
    pub(crate) mean_work: Nanos,
    /// Of what the pods could do.
    pub(crate) load: f64,
    pub(crate) rates: Rates,
    /// From client to pod, and back.
    pub(crate) hop: Nanos,
    /// More for pods of another of three zones.
    pub(crate) zone_hop: Nanos,
    /// So long a caller waits.
    pub(crate) deadline: Nanos,
    /// Not counted.
    pub(crate) warm: Nanos,
    pub(crate) run: Nanos,
    pub(crate) incident: Incident,
    /// How often clients ask DNS, each at its own phase; never again if nothing changes.
    pub(crate) ttl: Option<Nanos>,
}

/// How late DNS is: a pod's change reaches the answers after this.
pub(crate) const DNS_LATE: Nanos = SECOND;

impl Scenario {
    pub(crate) fn new(name: impl Into<String>, clients: u32, pods: u32) -> Self {
        Self {
            name: name.into(),
            clients,
            pods,
            subset: None,
            workers: 4,
            work: Work::Exponential,
            mean_work: 10 * MILLI,
            load: 0.7,
            rates: Rates::Equal,
            hop: 250 * MICRO,
            zone_hop: 0,
            deadline: SECOND,
            warm: 12 * SECOND,
            run: 30 * SECOND,
            incident: Incident::Nothing,
            ttl: None,
        }
    }

    pub(crate) fn subset(mut self, subset: Subset) -> Self {
        self.subset = Some(subset);
        self
    }

    pub(crate) fn load(mut self, load: f64) -> Self {
        self.load = load;
        self
    }

    pub(crate) fn work(mut self, work: Work, mean: Nanos) -> Self {
        self.work = work;
        self.mean_work = mean;
        self
    }

    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    pub(crate) fn lasts(mut self, warm: u64, run: u64) -> Self {
        self.warm = warm * SECOND;
        self.run = run * SECOND;
        self
    }

    pub(crate) fn suffers(mut self, incident: Incident) -> Self {
        self.incident = incident;
        self
    }

    /// Requests a second, of all clients.
    pub(crate) fn rate(&self) -> f64 {
        let work = self.mean_work as f64 / SECOND as f64;
        self.load * self.incident.capacity(self.pods) * f64::from(self.workers) / work
    }

    pub(crate) fn end(&self) -> Nanos {
        self.warm + self.run
    }

    /// The way from this client to this pod.
    pub(crate) fn way(&self, client: u32, pod: u32) -> Nanos {
        match client % 3 == pod % 3 {
            true => self.hop,
            false => self.hop + self.zone_hop,
        }
    }
}
