//! Pods as separate processes: this program, started again in a hidden mode.
//!
//! A pod names itself in each response and writes the number of each request that it receives to its
//! standard output. That is a pipe, so what was written outlives a `kill -9`: the owner knows for
//! every request how many pods saw it.
#![expect(
    clippy::disallowed_methods,
    reason = "what a pod writes is read beside the story"
)]

use std::{
    env,
    io::{self, Write},
    net::SocketAddr,
    process::Stdio,
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::{TcpSocket, TcpStream},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::support::{Result, pod::serve};

/// The first argument of this program when it is to be a pod.
pub(crate) const MODE: &str = "--pod";

/// Carries a request's number to the pod.
pub(crate) const REQUEST: &str = "x-request";
/// Carries the pod's number back.
pub(crate) const POD: &str = "x-pod";

/// How long a pod works on each request.
const WORK: Duration = Duration::from_millis(5);

/// Completed connections that wait to be accepted, as tokio's listeners have it. A hung pod takes
/// that many before its kernel falls silent, too.
const BACKLOG: u32 = 1024;

/// On loopback a connect completes within microseconds or, with its SYN dropped, not before the first
/// retransmission after a second.
const CONNECTS: Duration = Duration::from_millis(200);

/// More than a pod takes to start, or to finish what it has in hand.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a pod that is woken reads what piled up in its sockets.
const CATCH_UP: Duration = Duration::from_millis(300);

/// A pod: serves until SIGTERM, then closes its listener and the idle connections, finishes what is in
/// flight, and ends.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(number: &str, addr: &str) -> Result<()> {
    // However the owner ends, and even if this pod is stopped then: SIGKILL reaches stopped ones too.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut sigterm = signal(SignalKind::terminate())?;
    let socket = TcpSocket::new_v4()?;
    // An address that was served by a pod of an earlier run may have connections that are not over yet.
    socket.set_reuseaddr(true)?;
    socket.bind(addr.parse()?)?;
    let listener = socket.listen(BACKLOG)?;
    let (stop, stopped) = watch::channel(());
    let number = number.to_owned();
    let mut server = Box::pin(serve(
        listener,
        move |request| {
            note(&request);
            answer(number.clone(), request)
        },
        stopped,
    ));
    // Fails if the owner is gone already.
    writeln!(io::stdout(), "ready")?;
    tokio::select! {
        () = &mut server => {}
        _ = sigterm.recv() => {
            stop.send_replace(());
            server.await;
        }
    }
    Ok(())
}

/// Writes the request's number, before its future is polled for the first time: hyper drops that if it
/// sees that the client is gone already, as it is when a pod wakes up.
fn note(request: &Request<Incoming>) {
    if let Some(number) = request.headers().get(REQUEST) {
        // Nobody reads it once the owner is gone, and then neither lives this pod.
        let _ = writeln!(io::stdout(), "{}", number.to_str().unwrap_or_default());
    }
}

async fn answer(pod: String, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await;
    sleep(WORK).await;
    let status = if body.is_ok() { 200 } else { 400 };
    Response::builder()
        .status(status)
        .header(POD, pod)
        .body(Full::from("done\n"))
        .expect("a number is a header value")
}

/// A pod, as its owner holds it. Dropping it kills it.
pub(crate) struct Process {
    number: u8,
    addr: SocketAddr,
    child: Child,
    received: JoinHandle<Vec<u32>>,
    is_stopped: bool,
}

impl Process {
    /// Starts a pod and waits until it is ready.
    ///
    /// Call it on a thread that lives as long as the program: on Linux a pod dies with the thread that
    /// started it.
    pub(crate) async fn start(number: u8, addr: SocketAddr) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args([MODE, &number.to_string(), &addr.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().ok_or("the pod has no output")?;
        let mut lines = BufReader::new(stdout).lines();
        let first = timeout(PATIENCE, lines.next_line()).await;
        if !matches!(&first, Ok(Ok(Some(line))) if line == "ready") {
            return Err(format!("pod {number} at {addr} did not start: {first:?}").into());
        }
        let received = tokio::spawn(async move {
            let mut numbers = Vec::new();
            while let Ok(Some(line)) = lines.next_line().await {
                numbers.extend(line.parse::<u32>());
            }
            numbers
        });
        Ok(Self {
            number,
            addr,
            child,
            received,
            is_stopped: false,
        })
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    pub(crate) fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// SIGSTOP: nothing runs any more. The kernel goes on accepting connections and bytes for it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.is_stopped = true;
        self.signal(Signal::STOP)
    }

    /// Stops it, and sees to it that its kernel drops every SYN too, without root or a packet filter: a
    /// Linux listener whose queue of completed connections is full ignores SYNs (`tcp_conn_request`, as
    /// `net.ipv4.tcp_abort_on_overflow` is off). A stopped pod empties no queue, so connect until a
    /// connect is not answered. Those that were close at once and keep their place all the same.
    ///
    /// Tried on Linux 6.18: the queue takes one more than its backlog, later connects time out, and
    /// `nstat` counts their SYNs as `TcpExtListenOverflows`.
    pub(crate) async fn vanish(&mut self) -> Result<()> {
        self.stop()?;
        // Bounded by more than the queue takes; the client may have filled a part of it.
        for _ in 0..2 * BACKLOG {
            match timeout(CONNECTS, TcpStream::connect(self.addr)).await {
                Ok(connected) => drop(connected?),
                Err(_unanswered) => return Ok(()),
            }
        }
        Err("connects are still answered: only Linux drops those that find a full queue".into())
    }

    /// Lets a stopped pod run again.
    pub(crate) fn wake(&mut self) -> Result<()> {
        if self.is_stopped {
            self.is_stopped = false;
            self.signal(Signal::CONT)?;
        }
        Ok(())
    }

    /// Ends it, and tells the numbers of all requests that it received.
    pub(crate) async fn end(mut self) -> Result<Vec<u32>> {
        if self.child.try_wait()?.is_none() {
            self.terminate()?;
        }
        if timeout(PATIENCE, self.child.wait()).await.is_err() {
            return Err(format!("pod {} does not end after SIGTERM", self.number).into());
        }
        Ok(self.received.await?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().ok_or("the pod has ended")?;
        let pid = Pid::from_raw(id.try_into()?).ok_or("no process has the number 0")?;
        Ok(kill_process(pid, signal)?)
    }
}

/// Ends pods, the stopped ones too, and tells the numbers of all requests that they received.
///
/// A stopped pod is woken first: what was written to it lies in its sockets, and it reads that now. So
/// it shows which requests did go out to it.
pub(crate) async fn end_all(mut pods: Vec<Process>) -> Result<Vec<u32>> {
    for pod in &mut pods {
        pod.wake()?;
    }
    sleep(CATCH_UP).await;
    let mut received = Vec::new();
    for pod in pods {
        received.extend(pod.end().await?);
    }
    Ok(received)
}
