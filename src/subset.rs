//! Subsets: each client uses some of the pods, so that 1,000 clients of 1,000 pods do not hold a million
//! connections.
//!
//! ```no_run
//! use headless_lb::{Balancer, Dns, Subset};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // The headless service of the clients themselves; its port plays no part.
//! let peers = Dns::headless("checkout.shop.svc.cluster.local", 80)?;
//! let catalog = Balancer::builder(Dns::headless("catalog.shop.svc.cluster.local", 8080)?)
//!     .subset(Subset::by_peers(peers))
//!     .spawn();
//! # let _ = catalog;
//! # Ok(())
//! # }
//! ```
//!
//! # Why
//!
//! Connections cost both sides memory and handshakes. And a client that spreads its requests over all pods learns
//! nothing of any: with 100 clients and 100 pods at 80 % load, a client has 0.05 requests in flight at a pod, so
//! least-request picks at random, and no pod is ever asked often enough to stand out as slow or failing. Over 20
//! pods it has signal. So a subset pays where there are many clients *and* many pods; below some 20 pods it
//! changes nothing.
//!
//! # Which
//!
//! 1,000 clients of 1,000 pods, 20 pods each (`cargo run --release --example subset -- --full`):
//!
//! | | needs | load, max/mean | new connections: +1 pod | -1 pod | 10 % of pods replaced | clients +10 % |
//! |---|---|---|---|---|---|---|
//! | [`Subset::by_rendezvous`] | a name for the client | 1.7 | 0.1 % | 0.1 % | 13 % | 0 |
//! | [`Subset::by_peers`] | a headless service of the clients | 1.05 | 0.15 % | 0.16 % | 14 % | 3 % |
//!
//! The first needs no knowledge of others, and its load is as uneven as chance makes it: with few clients a pod,
//! some pods get none. The second is even; each client computes who takes which pods, all come to the same answer,
//! and no message is sent. Clients that disagree for a while only make it less even:
//! 1.15 where each knows of another 990 of 1,000 peers, 1.17 where caps of 21 and 22 are mixed, 1.19 with both. Where the mean is small, whole numbers bound it: a mean of ten clients
//! a pod has a maximum of eleven.
//!
//! # What it is not
//!
//! It evens *connections*. A client that sends ten times what others send loads its pods ten times as much, in a
//! subset as without one. And it does not look at zones or roles: a database's primary may be outside, so a
//! service with a [probe](crate::Builder::probe) is never narrowed.
//!
//! With HTTP/2 a pod costs a client one connection for any number of requests. There, choose a subset for the
//! signal rather than for sockets; with HTTP/1.1 each pod costs as many as requests overlap.
//!
//! # How
//!
//! An address is its 16 bytes, IPv4 mapped into IPv6, as two words: `id(ip) = s(high ^ s(low))`, where `s` is
//! SplitMix64 as published. The distance of client `c` and pod `p` is `h(c, p) = s(s(id(c)) ^ id(p))`; a client
//! that has a name instead of an address folds its bytes: `id = s(id ^ byte)`, from 0. This is frozen: all
//! versions must agree. Ports play no part: **pods that share an IP address are one**, taken or left together.
//!
//! By rendezvous, a client takes the nearest. By peers, pairs are gone through from the nearest to the farthest
//! ([`Matching`]), each client taking so many pods and each pod so many clients ([`Quota`]). Before the peers are
//! known, a client takes the nearest, and most of them stay.
//!
//! A pod of the subset that refuses connections, was ejected or fails its health checks is replaced for the time being
//! by the next nearest, up to four times the subset: beyond that it is the client's network that is down. It stays in
//! the set, set aside as ever, and the replacement leaves with an answer of DNS that finds the pod well again.

use std::{fmt, net::IpAddr, sync::Arc};

use crate::resolve::{Resolve, Source};

mod hash;
mod matching;
mod narrowing;
mod quota;

pub use hash::ClientId;
pub use matching::{Matching, nearest};
pub(crate) use narrowing::{Narrowing, Problem, Row};
pub use quota::Quota;

/// Which of the pods a client uses, for [`Builder::subset`](crate::Builder::subset). See the [module](self) for
/// which to choose.
#[derive(Clone, Debug)]
pub struct Subset {
    pub(crate) rule: Rule,
    pub(crate) size: Option<usize>,
}

#[derive(Clone)]
pub(crate) enum Rule {
    Rendezvous(ClientId),
    Peers {
        source: Arc<dyn Source>,
        service: Arc<str>,
        own: Option<IpAddr>,
    },
}

impl Subset {
    /// The `size` pods that are nearest to `client`, a name of its own or its address, by a hash. Nothing else
    /// is needed.
    ///
    /// A name that the client keeps over restarts, such as that of a StatefulSet's pod, keeps its pods too; clients
    /// of one name take the same pods. `size` 0 counts as 1.
    ///
    /// ```
    /// use headless_lb::{Balancer, Fixed, Subset};
    /// use std::net::SocketAddr;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let pods = (1..=100).map(|i| SocketAddr::from(([10, 0, 0, i], 80)));
    /// let web = Balancer::builder(Fixed::new(pods))
    ///     .subset(Subset::by_rendezvous("checkout-7", 20))
    ///     .spawn();
    /// web.resolved().await?;
    /// assert_eq!(web.endpoints().len(), 20);
    /// # Ok(())
    /// # }
    /// ```
    pub fn by_rendezvous(client: impl Into<ClientId>, size: usize) -> Self {
        Self {
            rule: Rule::Rendezvous(client.into()),
            size: Some(size.max(1)),
        }
    }

    /// A fair share of the pods among `peers`: the clients of the service, this one among them, most likely
    /// found under *their* headless service. Only their IP addresses matter.
    ///
    /// The peers are asked for as often as the pods. The last that are known count: an answer without any is never
    /// believed, for clients that start together are not ready yet. While none is known, the subset is the nearest
    /// pods ([`nearest`]), [`size`](Self::size) or 20 of them.
    ///
    /// This client's own address is added, for it may not be ready itself. It is [`own`](Self::own) if that is
    /// called, else the environment variable `POD_IP` if that holds an address (`fieldRef: status.podIP`), else the
    /// address from which the kernel would send to a pod: in a pod that is its own, unless it has several
    /// networks, or the names of pods and peers give addresses of different families. A wrong one is a client that
    /// nobody else counts, with pods that others take too.
    pub fn by_peers(peers: impl Resolve) -> Self {
        Self {
            rule: Rule::Peers {
                service: peers.service().into(),
                source: Arc::new(peers),
                own: None,
            },
            size: None,
        }
    }

    /// How many pods a client takes, at least 1; a lone client takes all. All peers should say the same.
    /// Default: [by peers](Self::by_peers) 20, or as many as give each pod ten clients; by rendezvous what
    /// was given there.
    #[must_use]
    pub fn size(mut self, size: usize) -> Self {
        self.size = Some(size.max(1));
        self
    }

    /// The address under which the peers know this client. Nothing to say by rendezvous.
    #[must_use]
    pub fn own(mut self, ip: IpAddr) -> Self {
        if let Rule::Peers { own, .. } = &mut self.rule {
            *own = Some(ip);
        }
        self
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rendezvous(client) => f.debug_tuple("Rendezvous").field(client).finish(),
            Self::Peers { service, own, .. } => f
                .debug_struct("Peers")
                .field("service", service)
                .field("own", own)
                .finish_non_exhaustive(),
        }
    }
}
