//! The library against a real PostgreSQL cluster under fault: three servers on the loopback network.
//!
//! They come from Debian's packages; `tests/run` installs them. Missing servers fail the tests.

#[path = "../examples/support/mod.rs"]
mod support;

#[path = "failover/fixture.rs"]
mod fixture;
