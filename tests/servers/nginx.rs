//! nginx as a pod: serves who it is, drains on SIGQUIT, and can be killed.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    authority::Identity,
    process::{NGINX, Process},
};

/// The length of `/slow`, which takes about two seconds.
pub const SLOW: usize = 40_000;

/// What a pod speaks.
#[derive(Clone, Copy, Debug)]
pub enum Speech<'a> {
    /// HTTP/1.1 in the open.
    Http1,
    /// HTTP/2 in the open: the client must know.
    Http2,
    /// HTTP/1.1 over TLS.
    Tls(&'a Identity),
    /// TLS, and what ALPN decides.
    TlsHttp2(&'a Identity),
}

#[derive(Debug)]
pub struct Pod {
    address: SocketAddr,
    process: Process,
    _folder: TempDir,
}

impl Pod {
    /// A pod that answers `/` with its name and the number of the connection, and `/slow` slowly.
    pub async fn start(name: &str, address: SocketAddr) -> Self {
        Self::speaking(Speech::Http1, name, address).await
    }

    /// The same, in another way.
    pub async fn speaking(speech: Speech<'_>, name: &str, address: SocketAddr) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("nginx")
            .tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .expect("a temporary folder can be made");
        let (options, identity) = match speech {
            Speech::Http1 => ("", None),
            Speech::Http2 => ("http2", None),
            Speech::Tls(identity) => ("ssl", Some(identity)),
            Speech::TlsHttp2(identity) => ("ssl http2", Some(identity)),
        };
        let mut certificate = "";
        if let Some(identity) = identity {
            let files = [
                ("pod.crt", &identity.certificate_pem),
                ("pod.key", &identity.key_pem),
            ];
            for (file, text) in files {
                fs::write(folder.path().join(file), text).expect("a file can be written");
            }
            certificate = "ssl_certificate pod.crt; ssl_certificate_key pod.key;";
        }
        // nginx that quits waits for a connection that has had no request yet until this is over (measured; 60 s
        // by default), for it is not idle to it.
        let first_request = "client_header_timeout 2s;";
        let config = format!(
            "daemon off; worker_processes 1; user root root; pid nginx.pid; error_log stderr;\n\
             events {{ }}\n\
             http {{\n access_log off;\n client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n \
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n keepalive_requests 1000000; {first_request}\n default_type text/plain;\n \
             server {{\n  listen {address} {options}; {certificate}\n  location / {{ return 200 \"{name} $connection $server_protocol $host\"; }}\n  \
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
