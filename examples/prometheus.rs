//! What Prometheus sees of a headless service: three pods, one of which refuses, and a DNS failure.
//!
//! Run it with `cargo run --example prometheus --features metrics`. It needs no cluster: cluster DNS, the pods, the
//! client and the page `/metrics` all live in this program, on loopback. The client sends some traffic while a pod
//! dies and DNS fails; then the program reads its own page, as Prometheus would, and prints what moved. The
//! last line sums it up, and the exit code is 0 only if every metric of the list is on the page and told
//! what happened.

#![expect(
    clippy::disallowed_methods,
    reason = "the page is served in a task of its own"
)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use headless_lb::{Balancer, Dns, HttpPod, RoundRobin, meter::METRICS};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use support::{
    ClusterDns, Node, Result, Workload, outcome,
    term::{Live, aside, heading, say, table},
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};
use tower::ServiceExt;

const SERVICE: &str = "catalog.shop.svc.cluster.local";

/// In each stage.
const REQUESTS: usize = 60;

/// How often the client asks DNS. The default is 5 s; the example is in a hurry.
const REFRESH: Duration = Duration::from_secs(1);

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where times begin that Prometheus counts by range: DNS in a cluster answers in a millisecond, and has 5 s.
const SECONDS: [f64; 7] = [0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0];

#[tokio::main]
async fn main() -> ExitCode {
    outcome("prometheus", run().await)
}

async fn run() -> Result<String> {
    heading("1. Install the recorder first: a balancer looks up its metrics when it is built.");
    let prometheus = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    let page = serve(prometheus).await?;
    say(format!("http://{page}/metrics"));

    heading("2. Three pods, and a client that calls them.");
    let dns = ClusterDns::start().await?;
    let mut node = Node::claim().await?;
    let mut pods = Workload::deployment(&dns, "catalog.shop", "catalog");
    pods.scale(&mut node, 3).await?;
    let catalog = Balancer::builder(Dns::headless(SERVICE, 8080)?.name_servers([dns.addr()]))
        .policy(RoundRobin::new())
        .refresh_interval(REFRESH)
        .service_name("catalog")
        .spawn_http();
    catalog.resolved().await?;
    calls(&catalog, REQUESTS).await?;
    say(&catalog);

    heading("3. A pod dies. DNS goes on listing it, so connects to it are refused.");
    let victim = pods.crash().await?;
    say(format!("killed {victim}"));
    calls(&catalog, REQUESTS).await?;
    say(&catalog);

    heading("4. The name server goes away. The last good set stays, and grows old.");
    drop(pods);
    drop(dns);
    let outage = Instant::now();
    let live = Live::default();
    while catalog.status().stale_since().is_none() {
        if outage.elapsed() > PATIENCE {
            return Err("the client has not noticed that DNS is away".into());
        }
        live.show(format_args!("{}", catalog.status()));
        sleep(Duration::from_millis(50)).await;
    }
    // The driver looks once a second.
    sleep(Duration::from_millis(2_100)).await;
    drop(live);
    say(catalog.status());

    heading("5. What Prometheus reads.");
    let text = timeout(PATIENCE, fetch(page)).await??;
    let series = parse(&text)?;
    show(&series);
    check(&series)
}

/// Calls one after the other; all must be answered.
async fn calls(catalog: &Balancer<HttpPod>, n: usize) -> Result<()> {
    for i in 0..n {
        let request = Request::get("http://catalog.shop/items/1").body(Empty::<Bytes>::new())?;
        let response = timeout(PATIENCE, catalog.clone().oneshot(request)).await;
        let response = response?.map_err(|error| format!("call {i} failed: {error}"))?;
        response.into_body().collect().await?;
    }
    Ok(())
}

// ===== the page =====

/// Serves the page as long as the program runs.
async fn serve(prometheus: PrometheusHandle) -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let prometheus = prometheus.clone();
            let answer = service_fn(move |request: Request<_>| {
                let response = match request.uri().path() {
                    "/metrics" => metrics(&prometheus),
                    _ => nothing(),
                };
                async { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                // How a scrape ends is Prometheus' business.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    });
    Ok(addr)
}

fn metrics(prometheus: &PrometheusHandle) -> Response<Full<Bytes>> {
    // What exporters with a server of their own do by a timer.
    prometheus.run_upkeep();
    let mut response = Response::new(Full::from(prometheus.render()));
    let text = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

fn nothing() -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// A scrape, by the library's own client.
async fn fetch(page: SocketAddr) -> Result<String> {
    let exporter = Balancer::builder(headless_lb::Fixed::new([page]))
        .service_name("exporter")
        .spawn_http();
    let request = Request::get(format!("http://{page}/metrics")).body(Empty::<Bytes>::new())?;
    let response = exporter.clone().oneshot(request).await?;
    let body = response.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec())?)
}

// ===== what it says =====

/// The series of the service, in the page's order by name: name, label, value.
struct Series {
    name: String,
    label: String,
    value: f64,
}

fn parse(page: &str) -> Result<Vec<Series>> {
    let mut found = Vec::new();
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    for line in lines.filter(|line| line.contains("service=\"catalog\"")) {
        let (key, value) = line.rsplit_once(' ').ok_or("a line without a value")?;
        let (name, labels) = key.split_once('{').ok_or("a series without labels")?;
        let own = |label: &&str| !label.starts_with("service=");
        let label = labels.trim_end_matches('}').split(',').find(own);
        found.push(Series {
            name: name.to_owned(),
            label: label.unwrap_or_default().replace('"', ""),
            value: value.parse()?,
        });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What is not zero, without the ranges of the histogram.
fn show(series: &[Series]) {
    let moved = series
        .iter()
        .filter(|series| series.value != 0.0 && !series.name.ends_with("_bucket"));
    let rows: Vec<[String; 3]> = moved
        .map(|series| {
            let value = match series.value.fract() {
                0.0 => format!("{:>13}", series.value),
                _ => format!("{:>17.3}", series.value),
            };
            [series.name.clone(), series.label.clone(), value]
        })
        .collect();
    table(["metric", "label", "        value"], &rows);
    let rest = series.iter().filter(|series| series.value == 0.0).count();
    aside(format!(
        "and {rest} series at zero: each is there from the start"
    ));
}

/// Every metric of the list is there, and what happened shows.
fn check(series: &[Series]) -> Result<String> {
    let names: BTreeSet<&str> = series.iter().map(|series| series.name.as_str()).collect();
    let is_there = |name: &str| names.iter().any(|own| own.starts_with(name));
    let missing: Vec<&str> = METRICS
        .iter()
        .map(|metric| metric.name)
        .filter(|name| !is_there(name))
        .collect();
    if !missing.is_empty() {
        return Err(format!("not on the page: {}", missing.join(", ")).into());
    }

    let values: BTreeMap<(&str, &str), f64> = series
        .iter()
        .map(|series| ((series.name.as_str(), series.label.as_str()), series.value))
        .collect();
    let value = |name, label| values.get(&(name, label)).copied().unwrap_or(0.0);
    let sum = |name| {
        let own = series.iter().filter(|series| series.name == name);
        own.map(|series| series.value).sum::<f64>()
    };
    let picks = sum("headless_lb_picks_total");
    let refused = value("headless_lb_connects_total", "result=refused");
    let unsent = value("headless_lb_retries_total", "kind=unsent");
    let failed = sum("headless_lb_resolve_total") - value("headless_lb_resolve_total", "result=ok");
    let age = value("headless_lb_set_age_seconds", "");
    let told = [
        ("every pick is counted", picks >= (2 * REQUESTS) as f64),
        ("the dead pod refused connects", refused >= 1.0),
        ("what it refused went elsewhere", unsent >= 1.0),
        ("a question failed", failed >= 1.0),
        ("the set is stale", value("headless_lb_stale", "") == 1.0),
        ("the set grows old", age >= 1.0),
    ];
    if let Some((what, _)) = told.iter().find(|(_, holds)| !holds) {
        return Err(format!("the page does not say so: {what}").into());
    }
    let (metrics, series) = (METRICS.len(), series.len());
    Ok(format!(
        "metrics={metrics} series={series} picks={picks} refused={refused} failed_questions={failed}"
    ))
}
