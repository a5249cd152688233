//! The library against a real PostgreSQL cluster under fault: three servers on the loopback network.
//!
//! They come from Debian's packages; `tests/run` installs them. Missing servers fail the tests. The trials are
//! those of `examples/failover`, which prints exact numbers and holds them to goals; here the bounds are
//! what a busy machine keeps.

#[path = "../examples/support/mod.rs"]
mod support;

#[path = "../examples/failover"]
#[allow(dead_code, reason = "the example uses the rest")]
mod trials {
    pub(crate) mod client;
    pub(crate) mod driver;
    pub(crate) mod fault;
    pub(crate) mod trial;
}

#[path = "failover/attributes.rs"]
mod attributes;
#[path = "failover/db.rs"]
mod db;
#[path = "failover/faults.rs"]
mod faults;
#[path = "failover/fixture.rs"]
mod fixture;
#[path = "failover/pains.rs"]
mod pains;
