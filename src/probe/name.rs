//! The primary by the name that an operator keeps for it.

use std::{collections::HashSet, fmt, net::IpAddr, sync::Arc, time::Duration};

use tokio::{sync::Mutex, time::Instant};

use super::{Authority, Observation, Probe, ProbeError, Role};
use crate::{
    endpoint::Endpoint,
    resolve::{Resolve, ResolveError},
};

/// The members of a second name are the primary: the endpoints whose IP address its answer has.
///
/// For operators that label the primary's pod: make a *headless* service that selects the label
/// (`cnpg.io/cluster: pg, cnpg.io/instanceRole: primary` with CloudNativePG, `spilo-role: master` with
/// Zalando's), and give its name. The read-write services that operators make themselves have a virtual IP
/// address, which is no pod's.
///
/// It knows as much as DNS does: as late (the record's time to live, the caches, the operator), and as
/// wrongly. CloudNativePG may leave the label on the old primary for a while
/// (<https://github.com/cloudnative-pg/cloudnative-pg/issues/10403>), and a primary that is not ready is not in
/// the answer, unless the service publishes not-ready addresses. A name is a hint: let the node
/// confirm it, with [`authority`](crate::probe::authority)`(ByName::new(..)).confirm(..)`.
///
/// Costs one lookup a second, however many endpoints there are. An answer without addresses says that there
/// is no primary, and of no pod what it is. A lookup that failed says nothing: two in a row end a claim.
///
/// ```
/// use headless_lb::{Fixed, probe::ByName};
///
/// // In a cluster: `ByName::new(Dns::headless("pg-primary.prod.svc.cluster.local", 5432)?)`.
/// let probe = ByName::new(Fixed::new([std::net::SocketAddr::from(([10, 244, 1, 7], 5432))]));
/// # let _ = probe;
/// ```
pub struct ByName<R> {
    resolver: R,
    /// Held during a lookup: the others wait for its answer.
    last: Mutex<Option<Lookup>>,
}

/// What a lookup brought, and when.
struct Lookup {
    done: Instant,
    outcome: Result<Members, Arc<ResolveError>>,
}

#[derive(Default)]
struct Members {
    addresses: HashSet<IpAddr>,
    partial: bool,
}

impl<R: Resolve> ByName<R> {
    /// Asks this resolver who the primary is. Ports mean nothing.
    pub fn new(resolver: R) -> Self {
        Self {
            resolver,
            last: Mutex::new(None),
        }
    }

    async fn look_up(&self) -> Result<Members, Arc<ResolveError>> {
        match self.resolver.resolve().await {
            Ok(answer) => Ok(Members {
                addresses: answer.addresses().iter().map(|a| a.socket().ip()).collect(),
                partial: answer.is_partial(),
            }),
            Err(error) if error.is_empty() => Ok(Members::default()),
            Err(error) => Err(Arc::new(error)),
        }
    }
}

impl Members {
    fn role(&self, ip: IpAddr) -> Result<Role, ProbeError> {
        if self.addresses.contains(&ip) {
            Ok(Role::Primary)
        } else if self.partial {
            Err(ProbeError::passing("the answer is not whole"))
        } else if self.addresses.is_empty() {
            Ok(Role::Unknown)
        } else {
            Ok(Role::Replica)
        }
    }
}

impl<R: Resolve> Probe for ByName<R> {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        let began = Instant::now();
        let mut last = self.last.lock().await;
        // Taken out while the name is looked up: a question that is given up leaves nothing behind.
        let kept = last
            .take()
            .filter(|last| last.holds(began, self.interval()));
        let lookup = match kept {
            Some(lookup) => lookup,
            None => Lookup {
                outcome: self.look_up().await,
                done: Instant::now(),
            },
        };
        match &last.insert(lookup).outcome {
            Ok(members) => {
                let role = members.role(endpoint.addr().ip())?;
                Ok(Observation::of(role).by_authority(Authority::Quorum))
            }
            Err(error) => Err(ProbeError::passing(Arc::clone(error))),
        }
    }

    /// 2 s: a query whose packet was lost is sent again.
    fn timeout(&self) -> Duration {
        Duration::from_secs(2)
    }
}

impl Lookup {
    /// Whether it answers a question that began then. An answer holds for the interval. A failure is that of those
    /// who waited for it and of no one else: a single one must not count twice.
    fn holds(&self, began: Instant, interval: Duration) -> bool {
        let time = match self.outcome {
            Ok(_) => interval,
            Err(_) => Duration::ZERO,
        };
        self.done + time > began
    }
}

impl<R: Resolve> fmt::Debug for ByName<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByName")
            .field("name", &self.resolver.service())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::SocketAddr,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::time::{advance, sleep};

    use super::*;
    use crate::{
        endpoint::Address,
        probe::ProbeFailure,
        resolve::{Resolution, ResolveErrorKind},
    };

    /// Answers in turn, each after 10 ms; counts the lookups.
    struct Script {
        answers: Vec<fn() -> Result<Resolution, ResolveError>>,
        asked: AtomicUsize,
    }

    impl Resolve for Script {
        async fn resolve(&self) -> Result<Resolution, ResolveError> {
            let turn = self.asked.fetch_add(1, Relaxed);
            sleep(Duration::from_millis(10)).await;
            self.answers[turn]()
        }
    }

    fn by(answers: &[fn() -> Result<Resolution, ResolveError>]) -> ByName<Arc<Script>> {
        ByName::new(Arc::new(Script {
            answers: answers.to_vec(),
            asked: AtomicUsize::new(0),
        }))
    }

    fn pod(i: u8) -> Endpoint {
        Endpoint::new(
            Address::from(SocketAddr::from(([10, 0, 0, i], 5432))),
            Instant::now(),
        )
    }

    async fn seen(probe: &ByName<Arc<Script>>, pod: &Endpoint) -> Result<Observation, ProbeError> {
        probe.observe(pod, &mut ()).await
    }

    fn answer(pods: &[u8]) -> Result<Resolution, ResolveError> {
        // At other ports than the endpoints.
        Ok(pods
            .iter()
            .map(|i| SocketAddr::from(([10, 0, 0, *i], 1)))
            .collect())
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_in_the_answer_is_the_primary_and_who_is_not_a_replica() {
        let probe = by(&[|| answer(&[2])]);
        let (one, two) = (pod(1), pod(2));
        let (first, second) = tokio::join!(seen(&probe, &one), seen(&probe, &two));
        let by_quorum = |role| Observation::of(role).by_authority(Authority::Quorum);
        assert_eq!(first.unwrap(), by_quorum(Role::Replica));
        assert_eq!(second.unwrap(), by_quorum(Role::Primary));
        assert_eq!(probe.resolver.asked.load(Relaxed), 1, "one lookup for all");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_the_interval() {
        let probe = by(&[|| answer(&[1]), || answer(&[2])]);
        let one = pod(1);
        assert_eq!(seen(&probe, &one).await.unwrap().role(), Role::Primary);
        advance(Duration::from_millis(990)).await;
        assert_eq!(seen(&probe, &one).await.unwrap().role(), Role::Primary);
        advance(Duration::from_millis(20)).await;
        assert_eq!(seen(&probe, &one).await.unwrap().role(), Role::Replica);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_answer_names_no_primary_and_calls_nobody_a_replica() {
        let empty: [fn() -> Result<Resolution, ResolveError>; 3] = [
            || answer(&[]),
            || Err(ResolveError::empty()),
            || Err(ResolveError::of(ResolveErrorKind::NxDomain)),
        ];
        for answer in empty {
            let seen = by(&[answer]).observe(&pod(1), &mut ()).await.unwrap();
            assert_eq!(seen.role(), Role::Unknown);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_lookup_counts_once_for_each_who_waited_and_is_made_again() {
        let probe = by(&[
            || Err(ResolveError::of(ResolveErrorKind::ServFail)),
            || answer(&[1]),
        ]);
        let (one, two) = (pod(1), pod(2));
        let (first, second) = tokio::join!(seen(&probe, &one), seen(&probe, &two));
        for error in [first.unwrap_err(), second.unwrap_err()] {
            assert_eq!(
                (error.failure(), error.is_definitive()),
                (ProbeFailure::Other, false)
            );
        }
        assert_eq!(probe.resolver.asked.load(Relaxed), 1);
        assert_eq!(seen(&probe, &one).await.unwrap().role(), Role::Primary);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_in_half_an_answer_may_be_in_the_other_half() {
        let half: fn() -> Result<Resolution, ResolveError> = || Ok(answer(&[1])?.partial());
        let probe = by(&[half]);
        assert_eq!(seen(&probe, &pod(1)).await.unwrap().role(), Role::Primary);
        assert!(!seen(&probe, &pod(2)).await.unwrap_err().is_definitive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lookup_that_is_given_up_is_made_anew() {
        let probe = by(&[|| answer(&[2]), || answer(&[1])]);
        let one = pod(1);
        let given_up = tokio::time::timeout(Duration::from_millis(5), seen(&probe, &one));
        given_up.await.unwrap_err();
        assert_eq!(seen(&probe, &one).await.unwrap().role(), Role::Primary);
    }
}
