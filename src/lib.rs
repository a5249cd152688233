//! Client-side load balancing over Kubernetes headless services.
//!
//! A headless service has no virtual IP: DNS answers with one address per ready pod. This crate
//! resolves the name again and again into an [`EndpointSet`], swaps the set atomically, and a
//! [`Policy`] picks the pod for each request or connection, which goes there directly.
//!
//! ```no_run
//! use headless_lb::{Balancer, Dns, LeastRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let db = Balancer::builder(Dns::srv("_postgres._tcp.db.prod.svc.cluster.local")?)
//!     .policy(LeastRequest::new())
//!     .spawn();
//! db.resolved().await?;
//! let pick = db.pick()?; // counts as in flight until it is dropped
//! let connection = tokio::net::TcpStream::connect(pick.addr()).await;
//! match &connection {
//!     Ok(_) => db.reached(pick.endpoint()),
//!     Err(_) => db.unreachable(pick.endpoint()), // set aside for a moment; DNS is asked again
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where to look
//!
//! | you want to | see |
//! |---|---|
//! | call an HTTP service | [`Builder::spawn_http`] |
//! | balance tower services of your own | [`Builder::spawn_with`], [`BalanceLayer`] |
//! | go on using hyper-util's client, or reqwest | `ClientLayer`, `ReqwestResolver` (features) |
//! | dial by yourself | [`Balancer::pick`], [`Balancer::pick_many`], [`Balancer::pod`] |
//! | set failing pods aside, start new ones slowly | [`Builder::eject`], [`Builder::slow_start`] |
//! | know why a pod gets no requests | [`Balancer::explain`] |
//! | follow the set | [`Balancer::subscribe`], [`Balancer::endpoints`], `println!("{balancer}")` |
//! | find endpoints elsewhere | [`Resolve`], [`Dns`], [`System`], [`Fixed`] |
//! | keep the requests of a key at one pod | [`Balancer::for_key`], [`Rendezvous`], [`Maglev`] |
//! | choose how pods are picked | [`Policy`]: the table of policies, and why [`Adaptive`] is the default |
//! | say what a failure is | [`Pick::record`], `Http::classify`, [`Balancer::classify`] |
//! | pick in your own way | [`Policy`], [`policy_fn`] |
//! | write to the primary of a database | [`Balancer::primary`], [`PrimaryView`], [`Writer`] |
//! | ask a database who it is | [`probe`]: `Postgres`, [`Patroni`], [`Redis`], [`probe_fn`] ... |
//! | keep a pool of your driver to the primary | `PgConnector`, `SqlxPrimary`, `RedisPrimary` (features) |
//! | read from replicas that are fresh enough | [`Replica`], [`Balancer::replica_at_least`] |
//! | ask each pod whether it is well | [`Builder::check`], [`Check`] |
//! | know why there is no primary | [`NoPrimary`], [`primary::Report`] |
//! | change a default | [`Builder`], [`Http`]: each setting with its reason |
//! | keep 1,000 clients from connecting to 1,000 pods each | [`Builder::subset`], [`Subset`] |
//! | know what becomes of an endpoint | [`NewService`] |
//! | drive the state machine by hand | [`registry`] |
//! | see it on a dashboard | `meter` (feature `metrics`) |
//!
//! # How it works
//!
//! ```text
//!                    ONE WRITER (a task)                        MANY READERS (every request)
//!
//!  DNS --> Resolve --> Resolution --> Subset                        policy (of the handle)
//!  interval,  |                         |                             | Candidates -> Choice
//!  back-off   |       +-----------+<----+  Snapshot{             +----v-----+
//!             +-------+ Registry  +-----> EndpointSet, --> ArcSwap> Balancer +--> Pick{service,
//!  Probe ------------>| Tracker   |        services }            +----+-----+      in flight}
//!  Check ------------>| Opinion   |                                   +--> primary() -> Writer
//!   ^    Observation  | (no I/O)  |                                   |
//!   |                 +-+--^------+                                   |
//!   +--- pace, at once -+  +---- alarm, hints, counters on the Endpoint <-- Outcome: success, failure,
//!                                (latency, in flight, failures in a row)          refused, given up
//!
//!  EndpointSet = [ primary | replicas | role unknown | ejected | rejected ]
//! ```
//!
//! - **The reader only reads.** A pick loads one pointer, takes no lock, allocates nothing, and reads
//!   the clock only for a policy that is about time. Endpoint and service come from that one snapshot.
//! - **One writer.** The [`Driver`] alone publishes. Requests write only counters on their endpoint,
//!   which survive every swap and a short absence.
//! - **Doubt never shrinks a set.** A failed, truncated or half answer adds or changes nothing;
//!   emptiness is confirmed before it is believed ([`EmptyMode`]).
//! - **DNS is a hint, connections are the truth.** A pod that refuses is set aside, and an unsent
//!   request goes elsewhere.
//! - **Opinion has limits.** Requests tell how they went; who fails again and again is ejected for a while, but
//!   never more than a tenth (rounded up), never the last, and not while less than half would be left ([`Ejection`]).
//! - **A primary is observed, never elected.** Claims are ordered by term, a lower one is never gone back
//!   to, and one that is not renewed expires. What a client cannot promise stands at [`PrimaryView`].
//!
//! # Not in a cluster
//!
//! Everything runs on one machine: [`Fixed`] and [`System`] need no DNS server, and
//! [`Dns::name_servers`](resolve::dns::Dns::name_servers) takes any. The examples bring a DNS server
//! and pods of their own.
//!
//! # Features
//!
//! `dns` (default): [`Dns`]. `http` (default): [`Builder::spawn_http`]. Without them the rest remains.
//! `http2`: `Http::http2`, [`probe`]'s `GrpcHealth`. `tls`: `Tls`. `hyper-client`: `ClientLayer`. `reqwest`: `ReqwestResolver`.
//! `postgres`: `Postgres` and [`probe`]'s `PostgresAlive`.
//! `tokio-postgres`: `PgConnector`. `deadpool-postgres`, `bb8`: pools of its connections. `sqlx`: `SqlxPrimary`.
//! `redis`: `RedisPrimary`. `metrics`: the module `meter`. `serde`: `Serialize` for [`Explanation`].
#![cfg_attr(docsrs, feature(doc_cfg))]

// In the order of the layers: a module uses only those above it (`tests/modules.rs`).
mod age;
mod backoff;
mod budget;
mod draw;
mod lanes;
mod outcome;

mod eject;
mod endpoint;
mod hint;
mod key;
#[cfg(feature = "metrics")]
pub mod meter;
#[cfg(not(feature = "metrics"))]
mod meter;
#[cfg(feature = "tls")]
mod tls;

pub mod resolve;

pub mod subset;

pub mod probe;

mod check;
mod set;

mod policy;
pub mod primary;
pub mod registry;

mod balancer;
mod driver;

mod builder;
mod service;

#[cfg(feature = "http")]
mod http;

#[cfg(any(feature = "hyper-client", feature = "reqwest"))]
mod clients;

#[cfg(any(feature = "tokio-postgres", feature = "sqlx", feature = "redis"))]
mod pools;

pub use balancer::{
    Balancer, Change, Changes, Explained, Explanation, Fenced, NoPrimary, NoPrimaryKind, Pick,
    PickError, Pod, PrimaryChanges, PrimaryView, Writer, Written,
};
pub use budget::Budget;
pub use builder::Builder;
pub use check::{Check, CheckFn};
#[cfg(feature = "reqwest")]
pub use clients::ReqwestResolver;
#[cfg(feature = "hyper-client")]
pub use clients::{ClientError, ClientLayer, ClientPod, Counted};
pub use driver::Driver;
pub use eject::Ejection;
pub use endpoint::{Address, Endpoint, InFlight};
pub use hint::Hint;
#[cfg(feature = "http")]
pub use http::{
    Http, HttpAnswer, HttpBody, HttpError, HttpPod, HttpResponseFuture, HttpService, Idempotent,
};
pub use outcome::{Cause, Failure, Outcome};
pub use policy::{
    Adaptive, First, FreshReplica, LeastRequest, Maglev, Or, PeakEwma, Policy, PolicyFn, Prefer,
    PreferReplica, Primary, Random, Rendezvous, Replica, RoundRobin, Weighted, policy_fn,
};
#[cfg(feature = "redis")]
pub use pools::RedisPrimary;
#[cfg(feature = "tokio-postgres")]
pub use pools::{PgClient, PgConnectError, PgConnector, PgTls};
#[cfg(feature = "sqlx")]
pub use pools::{SqlxPool, SqlxPrimary};
pub use primary::OnConflict;
#[cfg(feature = "postgres")]
pub use probe::Postgres;
pub use probe::{
    Authority, Lineage, Observation, Patroni, Probe, ProbeError, ProbeFailure, ProbeFn, Redis,
    Role, Term, probe_fn,
};
pub use registry::{EmptyMode, EndpointState, NewService, Status};
#[cfg(feature = "dns")]
pub use resolve::dns::{Dns, Family, NameError, NameErrorKind};
pub use resolve::{Fixed, Resolution, Resolve, ResolveError, ResolveErrorKind, System};
pub use service::{BalanceLayer, Classified, Error, ResponseFuture};
pub use set::{Candidates, Choice, EndpointSet, Position};
pub use subset::Subset;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// The TLS library, as [`Tls`] takes its configuration.
#[cfg(feature = "tls")]
pub use tokio_rustls::rustls;

/// The programs of the README compile.
#[cfg(all(doctest, feature = "dns", feature = "http"))]
#[doc = include_str!("../README.md")]
struct Readme;
