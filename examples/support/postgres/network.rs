//! Loopback addresses that nobody else uses.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use super::{PORT, Result};

/// A network 127.x.y.0/24 and a port, ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: [u8; 3],
    /// Held at `.1`, so that two programs on one machine never share a network.
    gateway: TcpListener,
    port: u16,
}

impl Network {
    /// A network that no other cluster of this machine has.
    pub(crate) fn claim() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let own = u8::try_from(process::id() % 200)? + 20;
        Self::first((0..200).map(|_| {
            let [_, low] = NEXT.fetch_add(1, Relaxed).to_be_bytes();
            [127, own, low]
        }))
    }

    /// 127.0.0.0/24 if its port is free, else the next: addresses that people can read.
    pub(crate) fn plain() -> Result<Self> {
        Self::first((0..16).map(|low| [127, 0, low]))
    }

    fn first(prefixes: impl Iterator<Item = [u8; 3]>) -> Result<Self> {
        let mut last = None;
        for prefix in prefixes {
            match Self::of(prefix) {
                Ok(network) => return Ok(network),
                Err(error) => last = Some(error),
            }
        }
        Err(format!("no loopback network has port {PORT} free: {last:?}").into())
    }

    fn of(prefix: [u8; 3]) -> Result<Self> {
        let [a, b, c] = prefix;
        let bind = |host| TcpListener::bind((Ipv4Addr::new(a, b, c, host), PORT));
        let gateway = bind(1)?;
        for host in 2..5 {
            bind(host)?;
        }
        Ok(Self {
            prefix,
            gateway,
            port: PORT,
        })
    }

    /// The address of a server; of its relay, ten further.
    pub(super) fn address(&self, number: usize) -> SocketAddr {
        let [a, b, c] = self.prefix;
        let host = u8::try_from(number + 2).expect("a small number");
        (Ipv4Addr::new(a, b, c, host), self.port).into()
    }
}
