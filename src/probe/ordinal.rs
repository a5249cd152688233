//! The primary by its place in a StatefulSet.

use super::{Observation, Probe, ProbeError, Role};
use crate::endpoint::Endpoint;

/// **Wrong from the first failover on**: calls one fixed pod of a StatefulSet the primary, asks nobody, and
/// goes on to do so when another pod has taken over. For a primary that is never moved: a single writer
/// whose replicas are never promoted, a test.
///
/// Anything that promotes (an operator, Patroni, a person) needs a probe that asks: charts that sent writes
/// to "pod 0" lost them at the first failover (<https://github.com/bitnami/charts/issues/3206>).
///
/// The ordinal is the number at the end of the pod's name, which SRV records tell
/// ([`Dns::srv`](crate::Dns::srv)); a pod without one is [`Role::Unknown`], the others are replicas. Costs
/// nothing, and sees nothing: a dead pod stays the primary.
///
/// ```
/// use headless_lb::probe::ByOrdinal;
///
/// let probe = ByOrdinal::new(0);
/// # let _ = probe;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ByOrdinal {
    primary: u32,
}

impl ByOrdinal {
    /// The pod with this ordinal is the primary, whatever happens.
    pub const fn new(primary: u32) -> Self {
        Self { primary }
    }
}

impl Probe for ByOrdinal {
    type Session = ();

    async fn open(&self, _: &Endpoint) -> Result<((), Option<Observation>), ProbeError> {
        Ok(((), None))
    }

    async fn observe(&self, endpoint: &Endpoint, _: &mut ()) -> Result<Observation, ProbeError> {
        Ok(Observation::of(match endpoint.ordinal() {
            Some(ordinal) if ordinal == self.primary => Role::Primary,
            Some(_) => Role::Replica,
            None => Role::Unknown,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::Instant;

    use super::*;
    use crate::endpoint::Address;

    #[tokio::test]
    async fn the_named_pod_alone_is_the_primary() {
        let role = async |name: Option<&'static str>| {
            let mut address = Address::from(SocketAddr::from(([10, 0, 0, 1], 5432)));
            if let Some(name) = name {
                address = address.named(name);
            }
            let endpoint = Endpoint::new(address, Instant::now());
            let seen = ByOrdinal::new(1).observe(&endpoint, &mut ()).await.unwrap();
            seen.role()
        };
        assert_eq!(role(Some("db-1")).await, Role::Primary);
        assert_eq!(role(Some("db-0")).await, Role::Replica);
        assert_eq!(role(Some("db-11")).await, Role::Replica);
        assert_eq!(role(Some("10-0-0-1")).await, Role::Unknown);
        assert_eq!(role(None).await, Role::Unknown);
    }
}
