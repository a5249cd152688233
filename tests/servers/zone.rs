//! Zone files that look like a cluster's.

use std::{fmt::Write, net::Ipv4Addr};

/// The zone that all authorities here serve.
pub const ORIGIN: &str = "svc.cluster.local.";

/// The port that SRV records tell.
pub const PORT: u16 = 8080;

/// The text of a zone file, as it grows.
#[derive(Debug)]
pub struct Zone {
    text: String,
}

impl Zone {
    /// An empty zone whose records, and whose negative answers, hold for `ttl` seconds.
    pub fn new(ttl: u32) -> Self {
        Self::with_serial(ttl, 1)
    }

    /// The same, as a later version of itself.
    pub fn with_serial(ttl: u32, serial: u32) -> Self {
        let text = format!(
            "$ORIGIN {ORIGIN}\n$TTL {ttl}\n@ SOA ns admin {serial} 7200 1800 86400 {ttl}\n@ NS ns\nns A 127.0.0.1\n"
        );
        Self { text }
    }

    /// A headless service with pods 0 to `count`, as A records.
    pub fn pods(mut self, service: &str, count: u16) -> Self {
        for index in 0..count {
            self.line(&format!("{service}.ns A {}", pod(index)));
        }
        self
    }

    /// One pod at an address of the caller's.
    pub fn pod_at(mut self, service: &str, ip: Ipv4Addr) -> Self {
        self.line(&format!("{service}.ns A {ip}"));
        self
    }

    /// A headless service with a port named `http`: SRV records, whose targets have an address each.
    pub fn srv(mut self, service: &str, count: u16) -> Self {
        for index in 0..count {
            let target = format!("{}.{service}.ns", pod_name(index));
            self.line(&format!("_http._tcp.{service}.ns SRV 0 1 {PORT} {target}"));
            self.line(&format!("{target} A {}", pod(index)));
        }
        self
    }

    /// Another name for a service, as an ExternalName is.
    pub fn alias(mut self, alias: &str, ttl: u32, service: &str) -> Self {
        self.line(&format!("{alias}.ns {ttl} CNAME {service}.ns"));
        self
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").expect("a string takes all text");
    }
}

/// The address of a pod by its number.
pub fn pod(index: u16) -> Ipv4Addr {
    let [high, low] = index.to_be_bytes();
    Ipv4Addr::new(10, 244, high, low)
}

/// The name that Kubernetes gives a pod without a hostname: its address with dashes.
pub fn pod_name(index: u16) -> String {
    pod(index).to_string().replace('.', "-")
}

/// The name of a headless service in the zone.
pub fn name(service: &str) -> String {
    format!("{service}.ns.{ORIGIN}")
}

/// The name of its SRV records.
pub fn srv_name(service: &str) -> String {
    format!("_http._tcp.{service}.ns.{ORIGIN}")
}
