//! The hash that all clients agree on: of an address, of a client, and of the two together.
//!
//! It is frozen. A client of another version that computed another order would take pods that the rest think
//! free, so literal values in the tests hold it in place.

use std::net::IpAddr;

use crate::draw::splitmix64;

/// Who chooses: the client's own address, or a name that it keeps over restarts.
///
/// ```
/// use headless_lb::subset::ClientId;
/// use std::net::Ipv4Addr;
///
/// let named = ClientId::from("checkout-7");
/// let addressed = ClientId::from(std::net::IpAddr::from(Ipv4Addr::new(10, 0, 0, 7)));
/// assert_ne!(named, addressed);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u64);

impl From<IpAddr> for ClientId {
    /// An IPv4 address and the same one mapped into IPv6 are one client.
    fn from(ip: IpAddr) -> Self {
        Self(id(ip))
    }
}

impl From<&str> for ClientId {
    fn from(name: &str) -> Self {
        Self(
            name.bytes()
                .fold(0, |hash, byte| splitmix64(hash ^ u64::from(byte))),
        )
    }
}

impl ClientId {
    /// The half of the hash that is the same for all pods.
    pub(super) fn eye(self) -> Eye {
        Eye(splitmix64(self.0))
    }
}

/// How a client sees pods: near or far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Eye(u64);

impl Eye {
    /// How far away the pod is: the same in all processes. It is one number for both sides, so a pod is to a
    /// client as near as the client is to the pod.
    #[inline]
    pub(super) fn distance(self, pod: u64) -> u64 {
        splitmix64(self.0 ^ pod)
    }
}

/// The identity of an address: its 16 bytes, IPv4 as mapped into IPv6 (`::ffff:a.b.c.d`). Ports play no part.
#[inline]
pub(super) fn id(ip: IpAddr) -> u64 {
    let (high, low) = halves(ip);
    splitmix64(high ^ splitmix64(low))
}

fn halves(ip: IpAddr) -> (u64, u64) {
    let bytes = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let bits = bytes.to_bits();
    ((bits >> 64) as u64, bits as u64)
}

/// Addresses in order, each once; mapped ones as the IPv4 addresses that they are.
pub(super) fn distinct(addresses: impl IntoIterator<Item = IpAddr>) -> Vec<IpAddr> {
    let mut distinct: Vec<_> = addresses.into_iter().map(|ip| ip.to_canonical()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn splitmix64_is_the_published_one() {
        // The first output for the seed 0, as listed by published test vectors.
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn the_hash_is_frozen() {
        // Computed apart from this code, by the formula of the module documentation of `subset`.
        assert_eq!(id(ip("10.0.0.1")), 0x4b53_ad7b_7736_1773);
        assert_eq!(id(ip("fd00::1")), 0x5e44_3a78_656d_9fdf);
        assert_eq!(
            ClientId::from("checkout-7"),
            ClientId(0x0eeb_829f_f93e_1f54)
        );
        let eye = ClientId::from(ip("10.0.0.1")).eye();
        assert_eq!(eye.distance(id(ip("10.0.0.2"))), 0x84ac_d35d_9272_e139);
        assert_eq!(
            ClientId::from(ip("fd00::1"))
                .eye()
                .distance(id(ip("10.0.0.2"))),
            0x080a_ccd0_4097_eda5
        );
    }

    #[test]
    fn an_ipv4_address_is_the_same_when_mapped() {
        assert_eq!(id(ip("10.0.0.1")), id(ip("::ffff:10.0.0.1")));
        assert_eq!(
            distinct([ip("::ffff:10.0.0.1"), ip("10.0.0.1")]),
            [ip("10.0.0.1")]
        );
    }
}
