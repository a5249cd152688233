//! Connections of tokio-postgres, deadpool-postgres, bb8 and sqlx, kept to the primary of real PostgreSQL servers.

#![expect(
    clippy::disallowed_methods,
    reason = "programs and scripted servers are tasks of their own"
)]

#[path = "pools/adapters.rs"]
mod adapters;
#[path = "pools/believed.rs"]
mod believed;
#[path = "pools/fifteen_lines.rs"]
mod fifteen_lines;
#[path = "pools/greeter.rs"]
mod greeter;
#[path = "pools/missing.rs"]
mod missing;
#[path = "pools/scripted.rs"]
mod scripted;
#[path = "pools/storm.rs"]
mod storm;
#[path = "../examples/support/mod.rs"]
mod support;
#[path = "pools/switches.rs"]
mod switches;
