//! nginx as a pod: serves who it is, drains on SIGQUIT, and can be killed.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::process::{NGINX, Process};

/// The length of `/slow`, which takes about two seconds.
pub const SLOW: usize = 40_000;

#[derive(Debug)]
pub struct Pod {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Pod {
    /// A pod that answers `/` with its name and the number of the connection, and `/slow` slowly.
    pub async fn start(name: &str, address: SocketAddr) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nginx")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a temporary folder can be made");
        let config = format!(
            "daemon off; worker_processes 1; user root root; pid nginx.pid; error_log stderr;\n\
             events {{ }}\n\
             http {{\n access_log off;\n client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n \
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n keepalive_requests 1000000;\n default_type text/plain;\n \
             server {{\n  listen {address};\n  location / {{ return 200 \"{name} $connection\"; }}\n  \
             location /slow {{ root .; limit_rate 20000; }}\n }}\n}}\n"
        );
        fs::write(folder.path().join("nginx.conf"), config).expect("a file can be written");
        fs::write(folder.path().join("slow"), [b'x'; SLOW]).expect("a file can be written");
        let arguments = ["-p", ".", "-c", "nginx.conf", "-e", "stderr"];
        let mut process = Process::start(NGINX, arguments, folder.path());
        process
            .ready(async || TcpStream::connect(address).await.is_ok())
            .await;
        Self {
            address,
            process,
            _folder: folder,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn ip(&self) -> Ipv4Addr {
        match self.address {
            SocketAddr::V4(address) => *address.ip(),
            SocketAddr::V6(_) => unreachable!("pods live in 127.0.0.0/8"),
        }
    }

    /// Tells the pod to stop as Kubernetes would, in the way nginx wants it: it closes its listener and its idle connections, and finishes
    /// what it serves.
    pub fn drain(&self) {
        self.process.signal(Signal::QUIT);
    }

    /// Waits until the pod has drained.
    pub async fn drained(mut self) {
        self.process.ended().await;
    }
}
