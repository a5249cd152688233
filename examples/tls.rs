//! TLS to the pods: each proves to be the service, and says in ALPN what it speaks. Then another service's
//! pod takes over an address, as it happens in a cluster: it is asked who it is, and gets no request.
//!
//! Run it with `cargo run --example tls --features tls,http2`.

mod support;

use std::{collections::BTreeMap, fmt::Display, process::ExitCode};

use headless_lb::{Balancer, Dns, Http, HttpPod, Tls};
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes};
use support::{
    ClusterDns, Node, Result, outcome, term,
    tls::{Authority, TlsPod},
};
use tower::ServiceExt;

const SERVICE: &str = "shop.workshop.svc.cluster.local";
const REQUESTS: usize = 60;

#[tokio::main]
async fn main() -> ExitCode {
    outcome("tls", run().await)
}

async fn run() -> Result<impl Display> {
    // The cluster: nothing of this is in your program.
    let (dns, authority) = (ClusterDns::start().await?, Authority::new()?);
    let mut node = Node::claim().await?;
    let mut pods = Vec::new();
    for (name, alpn) in [
        ("shop-1", &["h2", "http/1.1"][..]),
        ("shop-2", &["h2"]),
        ("shop-3", &["http/1.1"]),
    ] {
        let config = authority.certify(SERVICE, alpn)?;
        pods.push(TlsPod::start(name, node.address(8443)?, config).await?);
    }
    let shop = dns.service("shop.workshop");
    shop.ready(pods.iter().map(TlsPod::addr));

    // The client. Your `ClientConfig` says whom to trust; the name is the service's, whatever the addresses are.
    let source = Dns::headless(SERVICE, 8443)?.name_servers([dns.addr()]);
    let settings = Http::new().tls(Tls::service(authority.trusted()?, SERVICE)?);
    let client = Balancer::builder(source.clone()).spawn_http_with(settings.clone());

    term::heading("Three pods with certificates of the service");
    term::bars(&load(&client).await?);

    term::heading("shop-3 is gone, and a pod of mail.workshop has its address");
    let last = pods.pop().ok_or("there are three")?;
    let addr = last.addr();
    last.kill().await;
    let config = authority.certify("mail.workshop.svc.cluster.local", &["h2", "http/1.1"])?;
    let impostor = TlsPod::start("mail-1", addr, config).await?;
    term::bars(&load(&client).await?);

    term::heading("DNS lists nothing but that address");
    shop.ready([addr]);
    let alone = Balancer::builder(source).spawn_http_with(settings);
    let Err(error) = ask(&alone).await else {
        return Err("the impostor answered".into());
    };
    term::say(error);
    match impostor.requests() {
        0 => Ok(format!(
            "requests={} failed=0 received_by_impostor=0",
            2 * REQUESTS
        )),
        more => Err(format!("the impostor received {more} requests").into()),
    }
}

/// Who answered how often, over which protocol.
async fn load(client: &Balancer<HttpPod>) -> Result<BTreeMap<String, u64>> {
    let mut shares = BTreeMap::new();
    for _ in 0..REQUESTS {
        *shares.entry(ask(client).await?).or_default() += 1;
    }
    Ok(shares)
}

async fn ask(client: &Balancer<HttpPod>) -> Result<String> {
    let request = Request::get(format!("https://{SERVICE}/")).body(Full::<Bytes>::default())?;
    let response = client.clone().oneshot(request).await?;
    let version = response.version();
    let pod = response.into_body().collect().await?.to_bytes();
    Ok(format!(
        "{} over {version:?}",
        String::from_utf8_lossy(&pod)
    ))
}
