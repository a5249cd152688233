//! The pods: one process, with a server on a port for each.

use std::{
    convert::Infallible,
    env,
    io::{self, BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use http_body_util::Full;
use hyper::{Response, body::Bytes, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    Error, PODS,
    pinned::{self, Side},
};

/// What each of them answers.
pub(crate) const ANSWER: &[u8] = b"hello, world\n";

/// Serve until this is dropped.
pub(crate) struct Pods {
    process: Child,
    addrs: Vec<SocketAddr>,
}

impl Pods {
    pub(crate) fn start(n: usize) -> Result<Self, Error> {
        let process = Command::new(env::current_exe()?)
            .args([PODS, &n.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // First of all somebody who ends it.
        let mut pods = Self {
            process,
            addrs: Vec::new(),
        };
        let stdout = pods.process.stdout.take().ok_or("no output of the pods")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        pods.addrs = addrs(&line)?;
        Ok(pods)
    }

    /// The addresses of the first `n`, as an argument.
    pub(crate) fn first(&self, n: usize) -> String {
        joined(&self.addrs[..n])
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        // It may be gone.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The addresses in a line or an argument.
pub(crate) fn addrs(text: &str) -> Result<Vec<SocketAddr>, Error> {
    let addrs = text.trim().split(',').map(str::parse);
    Ok(addrs.collect::<Result<_, _>>()?)
}

fn joined(addrs: &[SocketAddr]) -> String {
    let addrs: Vec<String> = addrs.iter().map(SocketAddr::to_string).collect();
    addrs.join(",")
}

/// Serves, and prints the addresses, until standard input ends: also if the program that started it dies.
pub(crate) fn be_pods(arguments: &[String]) -> Result<ExitCode, Error> {
    let n: usize = arguments.first().ok_or("how many pods?")?.parse()?;
    pinned::to(Side::Pods)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listeners = runtime.block_on(async {
        let mut listeners = Vec::new();
        for _ in 0..n {
            listeners.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        }
        Ok::<_, io::Error>(listeners)
    })?;
    let addrs: Vec<SocketAddr> = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?;
    println!("{}", joined(&addrs));
    thread::spawn(move || runtime.block_on(accept(listeners)));
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(ExitCode::SUCCESS)
}

async fn accept(listeners: Vec<TcpListener>) {
    let pods = listeners.into_iter().map(|listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            #[expect(
                clippy::disallowed_methods,
                reason = "the pods end with their process, in the midst of what they do"
            )]
            tokio::spawn(serve(stream));
        }
    });
    futures_util::future::join_all(pods).await;
}

/// HTTP/1.1, and HTTP/2 for those who begin with it.
async fn serve(stream: TcpStream) -> Result<(), Error> {
    stream.set_nodelay(true)?;
    let answer = service_fn(|_| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))))
    });
    auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), answer)
        .await
}
