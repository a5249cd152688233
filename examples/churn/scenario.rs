//! What befalls the pods: four ways to lose them, and what cluster DNS says meanwhile.

use std::{iter, time::Duration};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::time::{Instant, sleep_until};

use crate::{
    pod::{self, Process},
    support::{ClusterDns, Node, Result, dns::Service},
};

/// How many pods there are, ready, at any time.
const REPLICAS: u8 = 3;

/// How long a cluster goes on listing a pod that is gone: until its readiness is known to be lost.
const NOTICED: Duration = Duration::from_secs(3);

/// The longest time between two steps of a rolling update.
const STEP: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    Rolling,
    Kill,
    Hang,
    Blackhole,
}

impl Scenario {
    pub(crate) const ALL: [Self; 4] = [Self::Rolling, Self::Kill, Self::Hang, Self::Blackhole];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Kill => "kill",
            Self::Hang => "hang",
            Self::Blackhole => "blackhole",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Rolling => {
                "Every pod is replaced, one by one: as soon as the new one is ready, DNS lists it\n\
                 instead of the old one, which gets its SIGTERM at once, without a preStop wait."
            }
            Self::Kill => {
                "kill -9: connections break, connects are refused. DNS lists the pod for another 3 s."
            }
            Self::Hang => {
                "SIGSTOP: the pod answers nothing more, but its kernel still accepts connections and\n\
                 bytes. DNS lists it for another 3 s, and its connections stay open for good."
            }
            Self::Blackhole => {
                "The pod's address falls silent: no answer on open connections, none to a SYN. DNS\n\
                 lists it for another 3 s."
            }
        }
    }
}

/// When it happens, and to whom.
pub(crate) struct Plan {
    at: Duration,
    step: Duration,
    victim: usize,
}

impl Plan {
    /// For a run of `length`: after a fifth of it and a random time, which shifts the fault against
    /// the balancer's questions to DNS, five seconds apart.
    pub(crate) fn draw(scenario: Scenario, seed: u32, length: Duration) -> Self {
        let mut random = SmallRng::seed_from_u64(u64::from(seed) + ((scenario as u64) << 32));
        let latest = (length.as_secs_f64() / 2.0 - 2.5).clamp(0.1, 5.0);
        Self {
            at: length / 5 + Duration::from_secs_f64(random.random_range(0.0..latest)),
            step: STEP.min(length / 8),
            victim: random.random_range(0..usize::from(REPLICAS)),
        }
    }
}

/// What happened, and when, counted from the begin of the load.
#[derive(Default)]
pub(crate) struct Fault {
    pub(crate) events: Vec<(Duration, String)>,
}

impl Fault {
    pub(crate) fn begin(&self) -> Duration {
        self.events.first().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// When DNS told the truth again.
    pub(crate) fn end(&self) -> Duration {
        self.events.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    fn note(&mut self, load: Instant, what: String) {
        self.events.push((load.elapsed(), what));
    }
}

/// Pods behind one headless service.
pub(crate) struct Deployment<'a> {
    service: Service<'a>,
    node: &'a mut Node,
    started: u8,
    ready: Vec<Process>,
    gone: Vec<Process>,
}

impl<'a> Deployment<'a> {
    /// Starts the pods and lists them in DNS.
    pub(crate) async fn start(
        dns: &'a ClusterDns,
        service: &str,
        node: &'a mut Node,
    ) -> Result<Self> {
        let mut deployment = Self {
            service: dns.service(service),
            node,
            started: 0,
            ready: Vec::new(),
            gone: Vec::new(),
        };
        for _ in 0..REPLICAS {
            let pod = deployment.another().await?;
            deployment.ready.push(pod);
        }
        deployment.publish();
        Ok(deployment)
    }

    /// Goes through the scenario, under a load that began at `load`.
    pub(crate) async fn suffer(
        &mut self,
        scenario: Scenario,
        plan: &Plan,
        load: Instant,
    ) -> Result<Fault> {
        let mut fault = Fault::default();
        sleep_until(load + plan.at).await;
        if scenario == Scenario::Rolling {
            let steps = iter::successors(Some(plan.at), |at| Some(*at + plan.step));
            for at in steps.take(REPLICAS.into()) {
                sleep_until(load + at).await;
                let (old, new) = self.replace().await?;
                fault.note(load, format!("SIGTERM pod {old}, DNS: {new} for it"));
            }
            return Ok(fault);
        }
        let mut victim = self.ready.remove(plan.victim);
        let number = victim.number();
        match scenario {
            Scenario::Kill => {
                victim.kill()?;
                fault.note(load, format!("kill -9 pod {number}"));
            }
            Scenario::Hang => {
                victim.stop()?;
                fault.note(load, format!("SIGSTOP pod {number}"));
            }
            Scenario::Blackhole | Scenario::Rolling => {
                fault.note(load, format!("pod {number} falls silent"));
                victim.vanish().await?;
            }
        }
        self.gone.push(victim);
        sleep_until(load + fault.begin() + NOTICED).await;
        self.publish();
        fault.note(load, format!("DNS drops pod {number}"));
        Ok(fault)
    }

    /// Replaces the oldest pod: the numbers of the old and the new one.
    async fn replace(&mut self) -> Result<(u8, u8)> {
        let new = self.another().await?;
        let old = self.ready.remove(0);
        let numbers = (old.number(), new.number());
        self.ready.push(new);
        self.publish();
        old.terminate()?;
        self.gone.push(old);
        Ok(numbers)
    }

    /// Ends all pods. Tells which requests they received, those that are gone included.
    pub(crate) async fn end(mut self) -> Result<Vec<u32>> {
        self.gone.append(&mut self.ready);
        pod::end_all(self.gone).await
    }

    async fn another(&mut self) -> Result<Process> {
        self.started += 1;
        Process::start(self.started, self.node.address(8080)?).await
    }

    fn publish(&self) {
        self.service.ready(self.ready.iter().map(Process::addr));
    }
}
