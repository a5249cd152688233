//! G8: what being probed costs a server.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use headless_lb::{Address, Balancer, Fixed};
use tokio::time::{Instant, sleep};

use crate::{
    counting::Counting,
    goal::{Goal, Times, us},
    support::{Result, postgres::Cluster},
    trial::{PATIENCE, probe},
};

/// More than sessions take to open.
const SETTLES: Duration = Duration::from_secs(1);

const SYNCS: usize = 2000;

/// Four a second, and what jitter and the count's edges may add in 10 s.
const MOST_QUESTIONS: f64 = 4.2;

/// Counts for so long.
pub(crate) async fn measure(time: Duration) -> Result<Vec<Goal>> {
    let cluster = Cluster::start().await?;
    let (mut relays, mut addresses) = (Vec::new(), Vec::new());
    for server in cluster.servers() {
        let relay = Counting::start(server.addr()).await?;
        addresses.push(Address::from(relay.addr()).named(server.name()));
        relays.push(relay);
    }
    let db = Balancer::builder(Fixed::new(addresses))
        .probe(probe())
        .spawn();
    db.primary().wait(PATIENCE).await?;
    sleep(SETTLES).await;
    let (begin, before): (_, Vec<_>) = (
        Instant::now(),
        relays.iter().map(Counting::counts).collect(),
    );
    sleep(time).await;
    let seconds = begin.elapsed().as_secs_f64();
    let (mut questions, mut most, mut bytes, mut connections) = (0.0_f64, 0.0_f64, 0.0_f64, 0);
    let pods = relays.len() as f64;
    for (relay, before) in relays.iter().zip(before) {
        let now = relay.counts();
        let rate = (now.questions - before.questions) as f64 / seconds;
        questions += rate / pods;
        most = most.max(rate);
        bytes = bytes.max((now.bytes - before.bytes) as f64 / seconds);
        connections = connections.max(now.connections);
    }
    let rate = Goal {
        number: 8,
        what: "probes per second and pod; connections",
        target: "4 (4.2 in 10 s); 1",
        is_met: questions > 0.0 && most <= MOST_QUESTIONS && connections == 1,
        measured: format!(
            "{questions:.2} (one pod {most:.2}), {bytes:.0} bytes a second both ways; {connections}"
        ),
    };
    drop(db);

    let addr = cluster.server(0).addr();
    let times = tokio::task::spawn_blocking(move || syncs(addr)).await??;
    let (median, p99) = (times.median(), times.p99());
    let time = Goal {
        number: 8,
        what: "... a server's time for each, by round trip",
        target: "30 us (median)",
        is_met: median.is_some_and(|median| median <= Duration::from_micros(30)),
        measured: format!(
            "{:.0} us, p99 {:.0} us, n {}",
            median.map_or(f64::NAN, us),
            p99.map_or(f64::NAN, us),
            times.len()
        ),
    };
    Ok(vec![rate, time])
}

/// What the probe asks when nothing changes, one after the other over a blocking socket, so that no
/// runtime's time is counted with the server's.
fn syncs(addr: SocketAddr) -> Result<Times> {
    let mut server = TcpStream::connect(addr)?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(PATIENCE))?;
    let parameters = b"user\0probe_trust\0database\0postgres\0\0";
    // The length with itself, and version 3.0 of the protocol.
    let length = u32::try_from(8 + parameters.len())?;
    server.write_all(&[&length.to_be_bytes()[..], &[0, 3, 0, 0], parameters].concat())?;
    until_ready(&mut server)?;
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let begin = Instant::now();
        server.write_all(b"S\0\0\0\x04")?;
        until_ready(&mut server)?;
        times.push(begin.elapsed());
    }
    // Goodbye.
    server.write_all(b"X\0\0\0\x04")?;
    Ok(times.into_iter().collect())
}

/// Reads messages until the server waits for the next question.
fn until_ready(server: &mut TcpStream) -> Result<()> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = server.read(&mut chunk)?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        bytes.extend_from_slice(&chunk[..read]);
        // `ReadyForQuery`: Z, a length of 5, the state of the transaction.
        if matches!(bytes[..], [.., b'Z', 0, 0, 0, 5, _]) {
            return Ok(());
        }
    }
}
