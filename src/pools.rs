//! Connections of the drivers and pools that programs have, kept to the primary.
//!
//! Each connects to whom [`PrimaryView`](crate::PrimaryView) names, compares the epoch again after the
//! connect, and ends its connections when the epoch moves. Nothing is written twice.

#[cfg(feature = "redis")]
mod redis;

#[cfg(feature = "redis")]
pub use self::redis::RedisPrimary;
