//! Connections of the drivers and pools that programs have, kept to the primary.
//!
//! Each connects to whom [`PrimaryView`](crate::PrimaryView) names, compares the epoch again after the
//! connect, and ends its connections when the epoch moves. Nothing is written twice.

#[cfg(feature = "bb8")]
mod bb8;
#[cfg(feature = "deadpool-postgres")]
mod deadpool;
#[cfg(feature = "tokio-postgres")]
mod pace;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlx")]
mod sqlx;
#[cfg(feature = "tokio-postgres")]
mod tokio_postgres;

#[cfg(feature = "redis")]
pub use self::redis::RedisPrimary;
#[cfg(feature = "sqlx")]
pub use self::sqlx::{SqlxPool, SqlxPrimary};
#[cfg(feature = "tokio-postgres")]
pub use self::tokio_postgres::{PgClient, PgConnectError, PgConnector, PgTls};
