//! Loopback addresses that nobody else uses.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use super::super::Result;

/// Redis' own port, which is free on the addresses of a network that is ours.
const PORT: u16 = 6379;

/// A network 127.x.y.0/24, ours as long as this lives.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: [u8; 3],
    /// Held at `.1`, so that two programs on one machine never share a network.
    _gateway: TcpListener,
}

impl Network {
    /// A network that nobody else of this machine has.
    pub(crate) fn claim() -> Result<Self> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let own = u8::try_from(process::id() % 200)? + 20;
        let mut last = None;
        for _ in 0..200 {
            let [_, low] = NEXT.fetch_add(1, Relaxed).to_be_bytes();
            match TcpListener::bind((Ipv4Addr::new(127, own, low, 1), PORT)) {
                Ok(gateway) => {
                    return Ok(Self {
                        prefix: [127, own, low],
                        _gateway: gateway,
                    });
                }
                Err(error) => last = Some(error),
            }
        }
        Err(format!("no loopback network has port {PORT} free: {last:?}").into())
    }

    /// The address of a server: `.2` for number 0.
    pub(crate) fn address(&self, number: usize) -> SocketAddr {
        let [a, b, c] = self.prefix;
        let host = u8::try_from(number + 2).expect("a small number");
        (Ipv4Addr::new(a, b, c, host), PORT).into()
    }
}
