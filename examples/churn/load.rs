//! The load: an open loop of GETs and POSTs, each with the caller's deadline, and how each one ended.

use std::time::Duration;

use headless_lb::{Balancer, Error, HttpError};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};
use tower::ServiceExt;

use crate::{
    pod::{POD, REQUEST},
    support::{Result, client::Http, term::Live},
};

const URL: &str = "http://catalog.churn:8080/items/1";

/// How long a caller waits.
pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

/// One request. Times count from the begin of the load.
pub(crate) struct Call {
    pub(crate) number: u32,
    /// When it should have been sent, whatever became of those before it.
    pub(crate) due: Duration,
    /// From then to its end, so that a client which stalls has to count that too.
    pub(crate) took: Duration,
    pub(crate) ending: Ending,
}

pub(crate) enum Ending {
    /// By the pod with this number, its body read to the end.
    Served(u8),
    /// No pod has seen it, says the library.
    Unsent(String),
    /// A pod may have seen it.
    Unknown(String),
    /// The caller gave up. The library had no say in this.
    Deadline,
}

impl Call {
    /// Every tenth request is one that must not be done twice.
    pub(crate) fn is_post(&self) -> bool {
        is_post(self.number)
    }

    pub(crate) fn is_served(&self) -> bool {
        matches!(self.ending, Ending::Served(_))
    }
}

pub(crate) fn is_post(number: u32) -> bool {
    number % 10 == 9
}

/// Sends `rate` requests a second for `seconds`, and waits for the last one.
pub(crate) async fn run(
    balancer: &Balancer<Http>,
    rate: u32,
    seconds: u32,
    begin: Instant,
) -> Result<Vec<Call>> {
    let total = rate * seconds;
    let mut calls = Vec::with_capacity(total as usize);
    let mut in_flight = JoinSet::new();
    let (live, mut failed) = (Live::default(), 0);
    for number in 0..total {
        let due = Duration::from_secs_f64(f64::from(number) / f64::from(rate));
        sleep_until(begin + due).await;
        while let Some(call) = in_flight.try_join_next() {
            let call: Call = call?;
            failed += u32::from(!call.is_served());
            calls.push(call);
        }
        in_flight.spawn(call(balancer.clone(), number, begin, due));
        if number % rate.div_ceil(10) == 0 {
            let (second, waiting) = (due.as_secs_f32(), in_flight.len());
            live.show(format_args!(
                "{second:.1} of {seconds} s: {number} sent, {waiting} in flight, {failed} failed"
            ));
        }
    }
    while let Some(call) = in_flight.join_next().await {
        calls.push(call?);
    }
    calls.sort_by_key(|call| call.number);
    Ok(calls)
}

async fn call(balancer: Balancer<Http>, number: u32, begin: Instant, due: Duration) -> Call {
    let ending = match timeout(DEADLINE, send(balancer, number)).await {
        Ok(Ok(pod)) => Ending::Served(pod),
        Ok(Err(ending)) => ending,
        Err(_elapsed) => Ending::Deadline,
    };
    Call {
        number,
        due,
        took: begin.elapsed() - due,
        ending,
    }
}

/// Sends it, once as far as this caller is concerned: who repeats it is the library.
async fn send(balancer: Balancer<Http>, number: u32) -> Result<u8, Ending> {
    let (method, body) = match is_post(number) {
        true => ("POST", "one more"),
        false => ("GET", ""),
    };
    let request = Request::builder()
        .method(method)
        .uri(URL)
        .header(REQUEST, number)
        .body(Full::<Bytes>::from(body))
        .expect("made of valid constants");
    let response = balancer.oneshot(request).await.map_err(ending)?;
    let pod = response.headers().get(POD).and_then(|pod| {
        let number = pod.to_str().ok()?;
        number.parse().ok()
    });
    let status = response.status();
    // A response that breaks off is a failure too.
    let body = response.into_body().collect().await;
    body.map_err(|error| Ending::Unknown(error.to_string()))?;
    match pod {
        Some(pod) if status.is_success() => Ok(pod),
        _ => Err(Ending::Unknown(format!("answered {status}"))),
    }
}

fn ending(error: Error<HttpError>) -> Ending {
    let unsent = error.is_unsent();
    let reason = match error {
        // Without the names of pods, so that equal reasons count together.
        Error::Service { error, .. } | Error::Unsent { error, .. } => error.to_string(),
        other => other.to_string(),
    };
    if unsent {
        Ending::Unsent(reason)
    } else {
        Ending::Unknown(reason)
    }
}
