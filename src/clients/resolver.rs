//! reqwest, with addresses from a balancer.

use std::{collections::HashMap, fmt, future::Future, net::SocketAddr, pin::Pin, sync::Arc};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::{
    balancer::{Balancer, Pick, PickError},
    draw::{Draw, below},
};

/// A name resolver for a [`reqwest::Client`]: it finds the pods of the services that it knows, and asks
/// the system for every other host.
///
/// ```no_run
/// use headless_lb::{Balancer, Dns, ReqwestResolver};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let catalog = Balancer::builder(Dns::headless("catalog.shop.svc.cluster.local", 8080)?).spawn();
/// let client = reqwest::Client::builder()
///     .dns_resolver(ReqwestResolver::new().host("catalog.shop", &catalog))
///     .no_proxy()
///     .build()?;
/// let response = client.get("http://catalog.shop/items/1").send().await?; // goes to port 8080
/// # let _ = response;
/// # Ok(())
/// # }
/// ```
///
/// # What this can do, and what it cannot
///
/// reqwest asks for addresses when it makes a connection, so **connections are balanced, requests are
/// not**: a connection that is kept alive takes all requests that it can, to one pod, and new pods get
/// none of them. To balance requests, let the balancer itself serve them: a `reqwest::Request` is an
/// [`http::Request<reqwest::Body>`](https://docs.rs/http) by `try_into`, and
/// [`spawn_http`](crate::Builder) makes the service for it. Short of that,
/// `ClientBuilder::pool_max_idle_per_host(0)` makes a connection for every request.
///
/// - The policy's pick comes first, then others, up to
///   [`max_attempts`](crate::Builder::max_attempts): reqwest falls through those that refuse. Its
///   `connect_timeout` is shared among them. Round robin is even only on average here.
/// - The port is the pod's, unless the URL has one: that is the one dialled.
/// - Before the first answer a connect waits as a call does
///   ([`initial_timeout`](crate::Builder::initial_timeout)).
/// - The balancer does not hear of connects that failed, of requests in flight nor of what became of them: no pod is
///   set aside or ejected, [`LeastRequest`](crate::LeastRequest) sees all pods idle, and
///   [`Adaptive`](crate::Adaptive) knows no latency.
/// - Over `https` the URL's host is what is verified, as it should be.
#[derive(Clone, Default)]
#[must_use = "a resolver does nothing until a client has it"]
pub struct ReqwestResolver {
    /// By host in lower case, as URLs have it.
    hosts: HashMap<Box<str>, Pods>,
}

/// Asks for the pods of one service.
type Pods = Arc<dyn Fn() -> Finding + Send + Sync>;
type Finding = Pin<Box<dyn Future<Output = Result<Vec<SocketAddr>, PickError>> + Send>>;

impl ReqwestResolver {
    /// Knows no service yet: asks the system for all hosts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds the pods of `balancer` for URLs with this host. It keeps discovery going as any handle
    /// does.
    pub fn host<S>(mut self, host: &str, balancer: &Balancer<S>) -> Self
    where
        S: Clone + Send + Sync + 'static,
    {
        let balancer = balancer.clone();
        let pods = move || -> Finding { Box::pin(find(balancer.clone())) };
        self.hosts.insert(canonical(host), Arc::new(pods));
        self
    }
}

impl Resolve for ReqwestResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let found = self.hosts.get(&canonical(name.as_str())).map(|find| find());
        Box::pin(async move {
            let addresses: Addrs = match found {
                Some(found) => Box::new(found.await?.into_iter()),
                // Port 0: that of the URL or of its scheme.
                None => {
                    let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                    Box::new(found.collect::<Vec<_>>().into_iter())
                }
            };
            Ok(addresses)
        })
    }
}

/// How far a walk from pod to pod jumps at random: more than there are addresses in an answer.
const JUMP: usize = 8;

/// As a call of the balancer picks, with the same patience, and with those to try next.
async fn find<S: Clone + Send + Sync + 'static>(
    balancer: Balancer<S>,
) -> Result<Vec<SocketAddr>, PickError> {
    // Round robin moves with every pick, also those of the pods to try next: three a time over three
    // pods would always begin with the same one.
    for _ in 0..below((Draw::from_thread().bits() >> 32) as u32, JUMP) {
        let _ = balancer.pick();
    }
    let attempts = balancer.max_attempts();
    let picks = match balancer.pick_many(attempts) {
        Err(error) => match balancer.wait_for(&error) {
            Some(wait) => {
                wait.await?;
                balancer.pick_many(attempts)?
            }
            None => return Err(error),
        },
        Ok(picks) => picks,
    };
    Ok(picks.iter().map(Pick::addr).collect())
}

/// Names are the same in either case, and with the root's dot or without.
fn canonical(host: &str) -> Box<str> {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase().into()
}

impl fmt::Debug for ReqwestResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestResolver")
            .field("hosts", &self.hosts.keys())
            .finish()
    }
}
