//! A registry that a test drives by hand, over services that log what they are told.

use std::{net::SocketAddr, sync::Arc, sync::mpsc, time::Duration};

use tokio::time::Instant;

use super::{Config, NewService, Registry};
use crate::{
    endpoint::{Address, Endpoint},
    outcome::{Cause, Outcome},
    probe::{Observation, ProbeError},
    resolve::{Resolution, ResolveError},
    set::{EndpointSet, Position},
};

/// What happened to the service of a host.
pub(super) type Told = (&'static str, u8);

pub(super) struct ByHand {
    pub(super) registry: Registry<Pods>,
    pub(super) now: Instant,
    pub(super) set: Arc<EndpointSet>,
    told: mpsc::Receiver<Told>,
    made: mpsc::Receiver<Arc<Endpoint>>,
    endpoints: Vec<Arc<Endpoint>>,
}

pub(super) struct Pods {
    connects: bool,
    log: mpsc::Sender<Told>,
    made: mpsc::Sender<Arc<Endpoint>>,
}

impl NewService for Pods {
    type Service = u8;

    fn new_service(&self, endpoint: &Arc<Endpoint>) -> u8 {
        self.made.send(Arc::clone(endpoint)).unwrap();
        host(endpoint)
    }

    fn warm(&self, host: &u8) -> bool {
        self.log.send(("warm", *host)).unwrap();
        self.connects
    }

    fn removed(&self, host: &u8) {
        self.log.send(("removed", *host)).unwrap();
    }

    fn returned(&self, host: &u8) {
        self.log.send(("returned", *host)).unwrap();
    }

    fn retired(&self, host: &u8) {
        self.log.send(("retired", *host)).unwrap();
    }
}

impl ByHand {
    /// Services that connect when asked to, if `connects`.
    pub(super) fn new(config: Config, connects: bool) -> Self {
        let now = Instant::now();
        let ((log, told), (make, made)) = (mpsc::channel(), mpsc::channel());
        let pods = Pods {
            connects,
            log,
            made: make,
        };
        Self {
            registry: Registry::new("web", config, pods, now),
            now,
            set: Arc::new(EndpointSet::of(Vec::<SocketAddr>::new())),
            told,
            made,
            endpoints: Vec::new(),
        }
    }

    pub(super) fn answer(&mut self, hosts: impl IntoIterator<Item = u8>) {
        self.listed(hosts.into_iter().map(|host| addr(host).into()));
    }

    pub(super) fn listed(&mut self, addresses: impl Iterator<Item = Address>) {
        self.registry.on_asked(self.now);
        self.registry
            .on_answer(self.now, Ok(Resolution::new(addresses)));
        self.publish();
    }

    /// These of the known ones are to be in the set.
    pub(super) fn narrowed(&mut self, hosts: impl IntoIterator<Item = u8>) {
        let addresses: Vec<_> = hosts.into_iter().map(|host| addr(host).into()).collect();
        self.registry.on_narrowed(self.now, &addresses);
        self.publish();
    }

    pub(super) fn nothing(&mut self) {
        self.registry.on_asked(self.now);
        self.registry
            .on_answer(self.now, Err(ResolveError::empty()));
        self.publish();
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.registry.on_tick(self.now);
        self.publish();
    }

    /// A connect to the newest endpoint of the host succeeds.
    pub(super) fn reached(&mut self, host: u8) {
        self.endpoint(host).reached();
        self.hear();
    }

    /// A connect to it fails.
    pub(super) fn refused(&mut self, host: u8) {
        self.endpoint(host).unreachable(Cause::Refused);
        self.registry.on_alarm(self.now);
        self.publish();
    }

    /// So many requests to it fail.
    pub(super) fn fails(&mut self, host: u8, times: u32) {
        for _ in 0..times {
            let mut request = self.endpoint(host).begin();
            request.record(Cause::Status(503).into());
        }
        self.hear();
    }

    /// So many succeed.
    pub(super) fn succeeds(&mut self, host: u8, times: u32) {
        for _ in 0..times {
            let mut request = self.endpoint(host).begin();
            request.record(Outcome::Success);
        }
        self.hear();
    }

    /// The registry looks, if there is an alarm.
    pub(super) fn hear(&mut self) {
        if self.registry.take_alarm() {
            self.registry.on_alarm(self.now);
        }
        self.publish();
    }

    /// A probe of the newest endpoint of the host reports.
    pub(super) fn observed(&mut self, host: u8, result: Result<Observation, ProbeError>) {
        let id = self.endpoint(host).id();
        self.registry.on_observed(self.now, id, result);
        self.publish();
    }

    /// A health check of it ends.
    pub(super) fn checked(&mut self, host: u8, result: Result<(), ProbeError>) -> bool {
        let id = self.endpoint(host).id();
        let is_news = self.registry.on_checked(self.now, id, result);
        self.publish();
        is_news
    }

    pub(super) fn endpoint(&self, host: u8) -> Arc<Endpoint> {
        let mut endpoints = self.endpoints.iter();
        let newest = endpoints.rfind(|endpoint| endpoint.addr() == addr(host));
        Arc::clone(newest.unwrap())
    }

    /// What services were told since the last look.
    pub(super) fn told(&self) -> Vec<Told> {
        self.told.try_iter().collect()
    }

    /// The set, ascending.
    pub(super) fn hosts(&self) -> Vec<u8> {
        let mut hosts: Vec<u8> = self.set.iter().map(|endpoint| host(endpoint)).collect();
        hosts.sort_unstable();
        hosts
    }

    pub(super) fn position(&self, of: u8) -> Option<Position> {
        let mut positions = self.set.positions();
        Some(positions.find(|(_, endpoint)| host(endpoint) == of)?.0)
    }

    fn publish(&mut self) {
        self.endpoints.extend(self.made.try_iter());
        if let Some(published) = self.registry.publish() {
            self.set = Arc::clone(published.snapshot().set());
        }
        self.registry.tell_services();
    }
}

pub(super) fn addr(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn host(endpoint: &Endpoint) -> u8 {
    (0..=u8::MAX)
        .find(|&host| addr(host) == endpoint.addr())
        .unwrap()
}
