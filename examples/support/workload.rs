//! Deployments and StatefulSets: pods that are started and stopped, and a service whose records
//! follow them as in a cluster.

use headless_lb::Address;

use super::{
    ClusterDns, Result,
    dns::Service,
    pod::{Node, Pod},
};

/// Replicas of one program behind one headless service.
pub(crate) struct Workload<'a> {
    service: Service<'a>,
    name: &'a str,
    kind: Kind,
    pods: Vec<Pod>,
    started: u16,
}

#[derive(Clone, Copy)]
enum Kind {
    /// Pods are interchangeable: new names, one port, no hostname in DNS.
    Deployment,
    /// Pods have an ordinal that they keep, and a hostname in DNS. Here each has a port of its own
    /// as well, which only SRV can tell.
    StatefulSet,
}

impl<'a> Workload<'a> {
    /// No replica yet.
    pub(crate) fn deployment(dns: &'a ClusterDns, service: &str, name: &'a str) -> Self {
        Self::new(dns, service, name, Kind::Deployment)
    }

    /// No replica yet.
    pub(crate) fn stateful_set(dns: &'a ClusterDns, service: &str, name: &'a str) -> Self {
        Self::new(dns, service, name, Kind::StatefulSet)
    }

    fn new(dns: &'a ClusterDns, service: &str, name: &'a str, kind: Kind) -> Self {
        Self {
            service: dns.service(service),
            name,
            kind,
            pods: Vec::new(),
            started: 0,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.name
    }

    /// How many pods there are.
    pub(crate) fn len(&self) -> usize {
        self.pods.len()
    }

    /// Starts or stops pods. One that starts is ready before DNS lists it; one that stops leaves
    /// DNS before its SIGTERM.
    pub(crate) async fn scale(&mut self, node: &mut Node, replicas: usize) -> Result<()> {
        while self.pods.len() < replicas {
            let pod = self.start(node).await?;
            self.pods.push(pod);
        }
        let leaving = self.pods.split_off(replicas);
        self.publish();
        for pod in leaving {
            pod.stop().await;
        }
        Ok(())
    }

    /// Scales to nothing, up to the point where DNS lists no pod; the pods still serve until they are
    /// stopped. A `preStop` hook that sleeps makes every cluster do this.
    pub(crate) fn drain(&mut self) -> Vec<Pod> {
        let leaving = std::mem::take(&mut self.pods);
        self.publish();
        leaving
    }

    /// Kills the pod in the middle. DNS goes on listing it until [`publish`](Self::publish): the
    /// cluster has yet to notice.
    pub(crate) async fn crash(&mut self) -> Result<Address> {
        if self.pods.is_empty() {
            return Err("there is no pod to kill".into());
        }
        let pod = self.pods.remove(self.pods.len() / 2);
        let victim = pod.named();
        pod.kill().await;
        Ok(victim)
    }

    /// Brings DNS up to date.
    pub(crate) fn publish(&self) {
        self.service
            .ready(self.pods.iter().map(|pod| match self.kind {
                Kind::Deployment => Address::from(pod),
                Kind::StatefulSet => pod.named(),
            }));
    }

    async fn start(&mut self, node: &mut Node) -> Result<Pod> {
        self.started += 1;
        let (number, port) = match self.kind {
            Kind::Deployment => (self.started, 8080),
            Kind::StatefulSet => (self.free_ordinal(), 8080 + self.started),
        };
        node.run(&format!("{}-{number}", self.name), port).await
    }

    /// A StatefulSet fills its gaps first.
    fn free_ordinal(&self) -> u16 {
        let taken = |n: &u16| {
            let name = format!("{}-{n}", self.name);
            self.pods.iter().any(|pod| pod.name() == name)
        };
        let mut ordinals = 0..=u16::MAX;
        ordinals.find(|n| !taken(n)).unwrap_or_default()
    }
}
