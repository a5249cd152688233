//! What an endpoint is called, and what else its resolver says of it.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU16, Ordering::Relaxed},
};

use super::{Address, Endpoint, address::identity};

/// Beside the endpoint: its own cache lines are full, and picks do not read this. Written by the driver alone.
#[derive(Debug)]
pub(super) struct Told {
    /// Written once: it may be told later than the address.
    name: OnceLock<Arc<str>>,
    label: Option<Arc<str>>,
    /// 0 if none was told.
    weight: AtomicU16,
}

impl Told {
    pub(super) fn of(address: Address) -> Box<Self> {
        Box::new(Self {
            name: address.name.map_or_else(OnceLock::new, OnceLock::from),
            label: address.label,
            weight: AtomicU16::new(address.weight),
        })
    }
}

impl Endpoint {
    /// The pod's name (`db-0`, or `10-244-1-7` for a pod without a hostname), where SRV records told one.
    #[inline]
    pub fn name(&self) -> Option<&str> {
        self.told.name.get().map(AsRef::as_ref)
    }

    /// What the resolver [labelled](Address::labelled) it with, such as its zone. DNS tells none. It is that of the
    /// answer in which the endpoint came: pods do not move.
    pub fn label(&self) -> Option<&str> {
        self.told.label.as_deref()
    }

    /// The weight that the newest answer [gave](Address::weighted) it; `None` if it gave none, or 0.
    ///
    /// SRV records always give one, but in Kubernetes it says nothing: it is the same for all pods of a service.
    pub fn weight(&self) -> Option<u16> {
        Some(self.told.weight.load(Relaxed)).filter(|&weight| weight > 0)
    }

    /// Who it is for those that go by keys: a number that depends on its name and port, or on IP and port if it has no
    /// name of its own. The same in every process; a StatefulSet's pod keeps it when it is replaced.
    pub(crate) fn identity(&self) -> u64 {
        identity(self.socket, self.name())
    }

    /// Names an endpoint that was found without a name; true if it had none. A second name does not replace the first.
    pub(crate) fn set_name(&self, name: &str) -> bool {
        let is_news = self.told.name.get().is_none();
        is_news && self.told.name.set(name.into()).is_ok()
    }

    pub(crate) fn set_weight(&self, weight: Option<u16>) {
        self.told.weight.store(weight.unwrap_or(0), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::time::Instant;

    use super::*;

    fn endpoint(address: Address) -> Endpoint {
        Endpoint::new(address, Instant::now())
    }

    fn at(text: &str) -> Address {
        text.parse::<SocketAddr>().unwrap().into()
    }

    #[test]
    fn the_first_name_stays() {
        let endpoint = endpoint(at("10.0.0.1:80"));
        assert_eq!(endpoint.name(), None);
        assert!(endpoint.set_name("db-0"));
        assert!(!endpoint.set_name("db-1"));
        assert_eq!(endpoint.name(), Some("db-0"));
    }

    #[test]
    fn a_weight_of_zero_is_none_and_the_newest_counts() {
        let endpoint = endpoint(at("10.0.0.1:80").weighted(0));
        assert_eq!(endpoint.weight(), None);
        endpoint.set_weight(Some(7));
        assert_eq!(endpoint.weight(), Some(7));
        endpoint.set_weight(None);
        assert_eq!(endpoint.weight(), None);
    }

    #[test]
    fn an_identity_is_the_name_and_port_or_without_a_name_of_its_own_the_address() {
        let identity = |address| endpoint(address).identity();
        let (here, there) = (at("10.0.0.1:80"), at("10.0.0.2:80"));
        let named = |address: &Address| identity(address.clone().named("db-0"));
        assert_eq!(named(&here), named(&there), "a pod that moved");
        assert_ne!(named(&here), named(&at("10.0.0.1:81")));
        assert_ne!(identity(here.clone()), identity(there));
        assert_eq!(identity(at("[::ffff:10.0.0.1]:80")), identity(here.clone()));
        // Cluster DNS makes this name from the address: clients that ask for SRV agree with those that ask for A.
        assert_eq!(identity(here.clone().named("10-0-0-1")), identity(here));
    }

    #[test]
    fn identities_are_frozen() {
        // A change here moves every key of every user, and separates clients of two versions.
        let identity = |address| endpoint(address).identity();
        assert_eq!(identity(at("10.244.1.7:8080")), 0xd895_06c9_95fd_dbe0);
        assert_eq!(identity(at("[fd00::7]:8080")), 0xde95_6ac9_0740_4f2f);
        assert_eq!(
            identity(at("10.244.1.7:5432").named("db-0")),
            0x3be3_0876_e577_d0e7
        );
    }
}
