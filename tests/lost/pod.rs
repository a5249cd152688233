//! A pod that misbehaves as scripted: it breaks off at any byte, hangs or takes its time, and remembers what it
//! received of each request.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

#[expect(
    clippy::disallowed_types,
    reason = "a test's log, off any request path"
)]
type Mutex<T> = std::sync::Mutex<T>;

/// What a pod does with a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Conduct {
    Answers,
    /// How long it takes is asked again when the request has come.
    AnswersAfter(Duration),
    /// The connection ends in the middle.
    Ends(Moment, How),
    /// The connection is reset this long after the request came.
    FailsAfter(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Moment {
    /// After so many bytes of the request. Zero: as soon as the connection is free for it.
    Byte(usize),
    /// After its head and so many bytes of its body, as they are on the wire.
    Body(usize),
    /// After all of it.
    Whole,
    /// After so many bytes of the response.
    Answer(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    Close,
    Reset,
}

/// What came of a request.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    /// The path without its slash; empty if it did not come so far.
    pub(crate) id: String,
    /// If it came whole.
    pub(crate) body: Option<Vec<u8>>,
}

/// Serves until it is dropped, which breaks its connections and closes its port.
pub(crate) struct Pod {
    addr: SocketAddr,
    seen: Arc<Seen>,
    _serving: JoinSet<()>,
}

struct Seen {
    conduct: Mutex<Box<dyn FnMut() -> Conduct + Send>>,
    received: Mutex<Vec<Received>>,
    hangs: watch::Sender<bool>,
    open: AtomicUsize,
    /// Requests that came whole and are not answered.
    busy: AtomicUsize,
    most_busy: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pod {
    /// Asks what to do at the start of each request. A kept connection's next one starts with the end of
    /// its last response.
    pub(crate) async fn start(
        ip: [u8; 4],
        conduct: impl FnMut() -> Conduct + Send + 'static,
    ) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from((ip, 0)))
            .expect("a loopback port");
        let listener = socket.listen(1024).expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let seen = Arc::new(Seen {
            conduct: Mutex::new(Box::new(conduct)),
            received: Mutex::default(),
            hangs: watch::Sender::new(false),
            open: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            most_busy: AtomicUsize::new(0),
        });
        let mut serving = JoinSet::new();
        let log = Arc::clone(&seen);
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let log = Arc::clone(&log);
                connections.spawn(async move {
                    let _open = Counted::new(&log.open);
                    let _ = serve(stream, &log, addr).await;
                });
            }
        });
        Self {
            addr,
            seen,
            _serving: serving,
        }
    }

    /// Answers everything at once.
    pub(crate) async fn good(ip: [u8; 4]) -> Self {
        Self::start(ip, || Conduct::Answers).await
    }

    /// Does these, one a request, and answers from then on.
    pub(crate) async fn scripted(ip: [u8; 4], script: impl IntoIterator<Item = Conduct>) -> Self {
        let mut script: VecDeque<Conduct> = script.into_iter().collect();
        Self::start(ip, move || script.pop_front().unwrap_or(Conduct::Answers)).await
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        lock(&self.seen.received).clone()
    }

    /// How many requests came whole.
    pub(crate) fn requests(&self) -> usize {
        lock(&self.seen.received)
            .iter()
            .filter(|received| received.body.is_some())
            .count()
    }

    /// From now on it takes connections and requests and answers none; or it answers again, also those.
    pub(crate) fn hang(&self, hangs: bool) {
        self.seen.hangs.send_replace(hangs);
    }

    pub(crate) fn open(&self) -> usize {
        self.seen.open.load(Relaxed)
    }

    /// The most requests that were unanswered at once since the last time this was asked.
    pub(crate) fn most_busy(&self) -> usize {
        self.seen.most_busy.swap(0, Relaxed)
    }
}

/// An address whose listener takes no connection, and has its queue full: connects hang.
pub(crate) struct Unreachable {
    listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Unreachable {
    pub(crate) async fn start(ip: [u8; 4]) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from((ip, 0)))
            .expect("a loopback port");
        let listener = socket.listen(1).expect("a loopback port");
        let addr = listener.local_addr().expect("a bound socket");
        let mut queue = Vec::new();
        while let Ok(Ok(stream)) =
            timeout(Duration::from_millis(100), TcpStream::connect(addr)).await
        {
            queue.push(stream);
        }
        Self {
            listener,
            _queue: queue,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }
}

/// Counts while it lives.
struct Counted<'c>(&'c AtomicUsize);

impl<'c> Counted<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn serve(mut stream: TcpStream, seen: &Seen, addr: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let mut conduct = lock(&seen.conduct)();
        let whole = read_request(&mut stream, &mut buffer, conduct).await;
        let (method, id) = line(&buffer);
        let Ok(Some((body, end))) = whole else {
            if !buffer.is_empty() {
                let body = None;
                lock(&seen.received).push(Received { method, id, body });
            }
            return end_with(stream, conduct);
        };
        buffer.drain(..end);
        if let Conduct::AnswersAfter(_) = conduct {
            // The connection may have been free since long.
            conduct = lock(&seen.conduct)();
        }
        let received = Received {
            method,
            id,
            body: Some(body),
        };
        lock(&seen.received).push(received);
        let busy = Counted::new(&seen.busy);
        seen.most_busy.fetch_max(busy.0.load(Relaxed), Relaxed);
        let takes = async {
            if let Conduct::AnswersAfter(time) | Conduct::FailsAfter(time) = conduct {
                sleep(time).await;
            }
            let mut hangs = seen.hangs.subscribe();
            let _ = hangs.wait_for(|hangs| !hangs).await;
        };
        tokio::select! {
            () = takes => {}
            // Whoever sends one request at a time can only have gone.
            _ = stream.read_buf(&mut buffer) => return Ok(()),
        }
        let body = addr.to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let sent = match conduct {
            Conduct::Ends(Moment::Answer(bytes), _) => bytes.min(answer.len() - 1),
            Conduct::Ends(..) | Conduct::FailsAfter(_) => 0,
            _ => answer.len(),
        };
        stream.write_all(&answer.as_bytes()[..sent]).await?;
        drop(busy);
        if sent < answer.len() {
            // A reset overtakes what is not read yet.
            sleep(Duration::from_millis(5)).await;
            return end_with(stream, conduct);
        }
    }
}

fn end_with(stream: TcpStream, conduct: Conduct) -> io::Result<()> {
    if matches!(
        conduct,
        Conduct::Ends(_, How::Reset) | Conduct::FailsAfter(_)
    ) {
        stream.set_zero_linger()?;
    }
    drop(stream);
    Ok(())
}

/// Method and path, as far as they came.
fn line(request: &[u8]) -> (String, String) {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or(&[]);
    let mut words = line.split(|byte| *byte == b' ');
    let mut word = || String::from_utf8_lossy(words.next().unwrap_or(&[])).into_owned();
    let (method, path) = (word(), word());
    // Only what ends is known.
    let is_whole = words.next().is_some();
    let id = path.trim_start_matches('/').to_owned();
    (method, if is_whole { id } else { String::new() })
}

/// The body of a whole request and where it ends. `None` at the moment to break off, or when the client did.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    conduct: Conduct,
) -> io::Result<Option<(Vec<u8>, usize)>> {
    loop {
        if let Some(whole) = whole_request(buffer) {
            return Ok(Some(whole));
        }
        let room = match (conduct, head_end(buffer)) {
            (Conduct::Ends(Moment::Byte(at), _), _) => at - buffer.len(),
            (Conduct::Ends(Moment::Body(at), _), Some(head)) => head + at - buffer.len(),
            // Byte by byte, for the head's end must not be missed.
            (Conduct::Ends(Moment::Body(_), _), None) => 1,
            _ => 64 * 1024,
        };
        if room == 0 || stream.take(room as u64).read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn head_end(request: &[u8]) -> Option<usize> {
    let place = request.windows(4).position(|part| part == b"\r\n\r\n")?;
    Some(place + 4)
}

fn whole_request(request: &[u8]) -> Option<(Vec<u8>, usize)> {
    let start = head_end(request)?;
    let head = String::from_utf8_lossy(&request[..start]).to_ascii_lowercase();
    if !head.contains("transfer-encoding: chunked") {
        let length = head.lines().find_map(|line| {
            let value = line.strip_prefix("content-length:")?;
            value.trim().parse::<usize>().ok()
        });
        let end = start + length.unwrap_or(0);
        return (request.len() >= end).then(|| (request[start..end].to_vec(), end));
    }
    let (mut body, mut at) = (Vec::new(), start);
    loop {
        let size = request[at..].windows(2).position(|part| part == b"\r\n")?;
        let digits = String::from_utf8_lossy(&request[at..at + size]).into_owned();
        let length = usize::from_str_radix(&digits, 16).expect("a chunk's size");
        at += size + 2;
        body.extend_from_slice(request.get(at..at + length)?);
        at += length + 2;
        request.get(at - 2..at)?;
        if length == 0 {
            return Some((body, at));
        }
    }
}
