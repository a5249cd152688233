//! A list that never changes.

use std::borrow::Cow;

use crate::{
    endpoint::Address,
    resolve::{Resolution, Resolve, ResolveError},
};

/// A fixed list of endpoints: tests, static installations, a name that is an IP address.
///
/// ```
/// use headless_lb::{Balancer, Fixed, RoundRobin};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let pods = ["127.0.0.1:8080", "127.0.0.2:8080"].map(|pod| pod.parse::<SocketAddr>());
/// let balancer = Balancer::builder(Fixed::new([pods[0].clone()?, pods[1].clone()?]))
///     .policy(RoundRobin::new())
///     .spawn();
/// balancer.resolved().await?;
/// assert_eq!(balancer.endpoints().len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Fixed {
    resolution: Resolution,
}

impl Fixed {
    /// The given endpoints, always.
    pub fn new(addresses: impl IntoIterator<Item = impl Into<Address>>) -> Self {
        Self {
            resolution: Resolution::new(addresses),
        }
    }
}

impl Resolve for Fixed {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        Ok(self.resolution.clone())
    }

    fn service(&self) -> Cow<'_, str> {
        Cow::Borrowed("fixed list")
    }
}
