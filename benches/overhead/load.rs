//! The work that every client does, and what it took.

use std::{fmt, future::Future, str::FromStr, time::Duration};

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use rustix::time::{ClockId, clock_gettime};
use tokio::{task::JoinSet, time::Instant};

use crate::{Error, pods::ANSWER};

/// Requests before those that count: connections are made, and buffers have grown.
const WARM_UP: u32 = 320;
/// However slow the machine is, valgrind included.
const LONGEST: Duration = Duration::from_secs(300);

/// So many requests in all, by so many workers, each of which sends one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) requests: u32,
    pub(crate) concurrency: u32,
}

/// One worker's client.
pub(crate) trait Caller: Send + 'static {
    type Body: Body<Data = Bytes, Error: Into<Error>> + Send + Unpin;

    /// Sends the one request there is, and awaits the head of its response.
    fn call(&mut self) -> impl Future<Output = Result<Self::Body, Error>> + Send;
}

/// What a run took: one line, for it comes out of another process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Of the whole process, per request.
    pub(crate) cpu: Duration,
    /// Median.
    pub(crate) latency: Duration,
}

impl Load {
    pub(crate) async fn run<C: Caller>(self, callers: Vec<C>) -> Result<Run, Error> {
        let run = async {
            let warm_up = WARM_UP / self.concurrency;
            let (callers, _) = work(callers, warm_up).await?;
            let share = self.requests / self.concurrency;
            let before = process_time();
            let (_callers, mut latencies) = work(callers, share).await?;
            let cpu = process_time() - before;
            let middle = latencies.len() / 2;
            Ok(Run {
                cpu: cpu / (share * self.concurrency),
                latency: *latencies.select_nth_unstable(middle).1,
            })
        };
        tokio::time::timeout(LONGEST, run).await?
    }
}

/// Each worker does its share. The workers again, and how long each request took.
async fn work<C: Caller>(callers: Vec<C>, share: u32) -> Result<(Vec<C>, Vec<Duration>), Error> {
    let mut workers = JoinSet::new();
    for mut caller in callers {
        workers.spawn(async move {
            let mut latencies = Vec::with_capacity(share as usize);
            // One reading of the clock per request: each begins when the one before has ended.
            let mut began = Instant::now();
            for _ in 0..share {
                let body = caller.call().await?;
                let length = length(body).await?;
                if length != ANSWER.len() {
                    return Err(format!("an answer of {length} bytes").into());
                }
                let now = Instant::now();
                latencies.push(now - began);
                began = now;
            }
            Ok::<_, Error>((caller, latencies))
        });
    }
    let (mut callers, mut latencies) = (Vec::new(), Vec::new());
    while let Some(done) = workers.join_next().await {
        let (caller, own) = done??;
        callers.push(caller);
        latencies.extend(own);
    }
    Ok((callers, latencies))
}

/// Reads to the end.
pub(crate) async fn length<B>(mut body: B) -> Result<usize, Error>
where
    B: Body<Data = Bytes, Error: Into<Error>> + Unpin,
{
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.map_err(Into::into)?.into_data();
        length += data.map_or(0, |data| data.len());
    }
    Ok(length)
}

fn process_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.cpu.as_nanos(), self.latency.as_nanos())
    }
}

impl FromStr for Run {
    type Err = Error;

    fn from_str(line: &str) -> Result<Self, Error> {
        let (cpu, latency) = line.trim().split_once(' ').ok_or("not the line of a run")?;
        Ok(Self {
            cpu: Duration::from_nanos(cpu.parse()?),
            latency: Duration::from_nanos(latency.parse()?),
        })
    }
}
