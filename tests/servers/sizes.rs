//! Sets of all sizes that fit a message, whoever the authority is.

use std::net::SocketAddr;

use headless_lb::Resolve;
use tokio::time::Instant;

use crate::{
    PORT, headless, pods, sockets,
    wire::{self, A, Transport},
    zone::{Zone, name},
};

/// One message holds 73 A records over UDP with the 1,232 bytes that are asked for, and 4,092 over TCP.
const SIZES: [u16; 6] = [3, 74, 500, 2000, 4090, 4092];

/// A service of each size.
pub fn zone() -> Zone {
    let add = |zone: Zone, size: &u16| zone.pods(&format!("web{size}"), *size);
    SIZES.iter().fold(Zone::new(30), add)
}

/// Each comes whole: over UDP where it fits, over TCP where it does not.
pub async fn come_whole(server: SocketAddr) {
    for size in SIZES {
        let service = format!("web{size}");
        let raw = wire::ask(server, &name(&service), A, Transport::Udp).await;
        assert_eq!(raw.expect("an answer").truncated, size > 73, "{size}");

        let start = Instant::now();
        let found = headless(&service, [server]).resolve().await;
        let found = found.unwrap_or_else(|error| panic!("{size}: {error}"));
        println!("{size} A records in {:?}", start.elapsed());
        assert!(!found.is_partial(), "{size}");
        assert!(sockets(&found) == pods(size, PORT), "{size}: other pods");
    }
}
