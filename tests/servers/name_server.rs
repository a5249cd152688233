//! Knot, BIND, unbound and dnsmasq, each on its own loopback address with its files in a temporary folder.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    process::{DNSMASQ, KNOTC, KNOTD, NAMED, Process, Program, UNBOUND, free_address, free_port},
    wire::{self, NOERROR, SOA, Transport},
    zone::{ORIGIN, Zone},
};

#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    program: Program,
    arguments: Vec<String>,
    /// Before `folder`: the server ends before its files do.
    process: Option<Process>,
    folder: TempDir,
}

impl NameServer {
    /// Knot DNS, authoritative for `zone`.
    pub async fn knot(zone: &Zone) -> Self {
        let mut server = Self::knot_of(zone.text());
        server.start().await;
        server
    }

    /// A Knot that says REFUSED to every question of ours: it serves another zone.
    pub async fn refusing() -> Self {
        let mut server = Self::knot_of("");
        server.write("knot.conf", &knot_config(server.address, "example."));
        server.write(
            "zone",
            "example. 30 SOA ns admin 1 7200 1800 86400 30\nexample. NS ns.example.\n",
        );
        server.start_until(wire::REFUSED).await;
        server
    }

    /// A Knot that says SERVFAIL to every question of ours: its zone cannot be loaded.
    pub async fn failing() -> Self {
        let mut server = Self::knot_of("this is not a zone\n");
        server.start_until(wire::SERVFAIL).await;
        server
    }

    fn knot_of(zone: &str) -> Self {
        let server = Self::new(KNOTD, &["-c", "knot.conf"]);
        server.write("knot.conf", &knot_config(server.address, ORIGIN));
        server.write("zone", zone);
        server
    }

    /// BIND, authoritative for `zone`. `options` are more lines for its `options` block.
    pub async fn bind(zone: &Zone, options: &str) -> Self {
        let mut server = Self::bind_of(zone, options);
        server.start().await;
        server
    }

    /// The same, when the zone is expected not to load.
    pub async fn bind_without_zone(zone: &Zone, options: &str) -> Self {
        let mut server = Self::bind_of(zone, options);
        server.start_until(wire::SERVFAIL).await;
        server
    }

    fn bind_of(zone: &Zone, options: &str) -> Self {
        let mut server = Self::new(NAMED, &["-g", "-n", "1", "-c", "named.conf"]);
        // BIND listens on addresses that an interface has, and of 127.0.0.0/8 that is this one.
        server.address = free_port(Ipv4Addr::LOCALHOST);
        let (ip, port) = (server.address.ip(), server.address.port());
        let config = format!(
            "options {{\n directory \".\";\n listen-on port {port} {{ {ip}; }};\n listen-on-v6 {{ none; }};\n \
             pid-file none;\n session-keyfile none;\n recursion no;\n notify no;\n allow-query {{ any; }};\n \
             {options}\n}};\ncontrols {{ }};\n\
             zone \"{ORIGIN}\" {{ type primary; file \"zone\"; }};\n"
        );
        server.write("named.conf", &config);
        server.write("zone", zone.text());
        server
    }

    /// unbound as a cache in front of `authority`.
    pub async fn unbound(authority: SocketAddr) -> Self {
        let mut server = Self::new(UNBOUND, &["-d", "-d", "-p", "-c", "unbound.conf"]);
        let config = format!(
            "server:\n interface: {}@{}\n chroot: \"\"\n username: \"\"\n directory: \".\"\n use-syslog: no\n \
             do-not-query-localhost: no\n access-control: 127.0.0.0/8 allow\n module-config: \"iterator\"\n do-ip6: no\n\
             remote-control:\n control-enable: no\n\
             stub-zone:\n name: \"{ORIGIN}\"\n stub-addr: {}@{}\n",
            server.address.ip(),
            server.address.port(),
            authority.ip(),
            authority.port(),
        );
        server.write("unbound.conf", &config);
        server.start().await;
        server
    }

    /// dnsmasq as a cache in front of `authority`.
    pub async fn dnsmasq(authority: SocketAddr) -> Self {
        let mut server = Self::new(DNSMASQ, &[]);
        server.arguments = vec![
            "--keep-in-foreground".into(),
            "--conf-file=/dev/null".into(),
            "--no-resolv".into(),
            "--no-hosts".into(),
            "--bind-interfaces".into(),
            "--pid-file=".into(),
            "--log-facility=-".into(),
            // Stay who we are: with a change of group the kernel forgets that the server ends with the test.
            "--user=root".into(),
            "--group=root".into(),
            format!("--listen-address={}", server.address.ip()),
            format!("--port={}", server.address.port()),
            format!(
                "--server=/{}/{}#{}",
                ORIGIN.trim_end_matches('.'),
                authority.ip(),
                authority.port()
            ),
        ];
        server.start().await;
        server
    }

    fn new(program: Program, arguments: &[&str]) -> Self {
        // Under `target`, not in `/tmp`: nothing is left elsewhere when a run is killed.
        let folder = tempfile::Builder::new()
            .prefix(program.name)
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a temporary folder can be made");
        Self {
            address: free_address(),
            program,
            arguments: arguments.iter().map(ToString::to_string).collect(),
            process: None,
            folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts the server, at the address that it had before if it was stopped.
    pub async fn start(&mut self) {
        self.start_until(NOERROR).await;
    }

    async fn start_until(&mut self, rcode: u8) {
        let mut process = Process::start(self.program, &self.arguments, self.folder.path());
        let address = self.address;
        process
            .ready(async || {
                wire::ask(address, ORIGIN, SOA, Transport::Udp)
                    .await
                    .is_ok_and(|answer| answer.rcode == rcode)
            })
            .await;
        self.process = Some(process);
    }

    /// Kills the server.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Replaces the zone that the server reads when it starts.
    pub fn rewrite(&self, zone: &Zone) {
        self.write("zone", zone.text());
    }

    /// Replaces the zone of a running BIND; it holds when the server has read it, soon.
    pub fn reload(&self, zone: &Zone) {
        self.rewrite(zone);
        let process = self.process.as_ref().expect("the server runs");
        process.signal(Signal::HUP);
    }

    /// Changes records of a running Knot, all at once: `set <owner> <ttl> <type> <data>`, `unset <owner> <type> <data>`.
    pub fn change(&self, changes: &[&str]) {
        self.knotc("begin");
        for change in changes {
            self.knotc(change);
        }
        self.knotc("commit");
    }

    fn knotc(&self, command: &str) {
        let (action, rest) = command.split_once(' ').unwrap_or((command, ""));
        let output = Command::new(KNOTC.path())
            .current_dir(self.folder.path())
            .args(["-s", "./knot.sock", &format!("zone-{action}"), ORIGIN])
            .args(rest.split_whitespace())
            .output()
            .expect("knotc can be run");
        assert!(output.status.success(), "knotc {command}: {output:?}");
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.folder.path().join(file), text).expect("a temporary file can be written");
    }
}

fn knot_config(address: SocketAddr, zone: &str) -> String {
    let (ip, port) = (address.ip(), address.port());
    format!(
        "server:\n    rundir: \".\"\n    listen: {ip}@{port}\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\n    answer-rotation: on\n\
         control:\n    listen: knot.sock\n\
         log:\n  - target: stderr\n    any: info\n\
         database:\n    storage: \".\"\n\
         template:\n  - id: default\n    storage: \".\"\n    zonefile-sync: -1\n    zonefile-load: whole\n    \
         journal-content: none\n\
         zone:\n  - domain: {zone}\n    file: zone\n"
    )
}
