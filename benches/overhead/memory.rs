//! Memory that a client holds for each pod, with connections and without.

use std::{fs, net::SocketAddr, process::ExitCode, time::Duration};

use headless_lb::Http;
use http_body_util::Empty;
use hyper::{Request, Response, body::Body, body::Bytes};
use tower::{Service, ServiceExt};

use crate::{
    Error, HOLDER,
    contestants::{balanced, legacy, request, uri},
    load::length,
    pods::{self, Pods},
    valgrind,
};

/// Many pods minus few leaves pods alone: the runtime, the driver and the program cancel out.
const FEW: usize = 50;
const MANY: usize = 250;

/// What is held, by what name.
const HELD: &[(&str, &str)] = &[
    ("balanced", "pod without a connection"),
    ("balanced-http1", "pod with an idle HTTP/1.1 connection"),
    ("balanced-h2", "the same over HTTP/2"),
    ("legacy-http1", "the same, by the legacy Client"),
    ("legacy-h2", "the same, by the legacy Client over HTTP/2"),
];

/// What a process that is about to be measured does.
async fn hold(name: &str, addrs: &[SocketAddr]) -> Result<(), Error> {
    match name {
        "balanced" => keep(balanced(addrs).spawn_http(), &[]).await,
        "balanced-http1" => keep(balanced(addrs).spawn_http(), addrs).await,
        "balanced-h2" => {
            let client = balanced(addrs).spawn_http_with(Http::new().http2());
            keep(client, addrs).await
        }
        "legacy-http1" => keep(legacy(false), addrs).await,
        "legacy-h2" => keep(legacy(true), addrs).await,
        name => Err(format!("nothing to hold is called {name}").into()),
    }
}

/// A request to each address, one after the other: a balanced client takes each pod in turn.
async fn keep<S, B>(mut client: S, addrs: &[SocketAddr]) -> Result<(), Error>
where
    S: Service<Request<Empty<Bytes>>, Response = Response<B>>,
    S::Error: Into<Error>,
    B: Body<Data = Bytes, Error: Into<Error>> + Unpin,
{
    for &addr in addrs {
        let client = client.ready().await.map_err(Into::into)?;
        let response = client.call(request(&uri(addr)?));
        length(response.await.map_err(Into::into)?.into_body()).await?;
    }
    // The driver has its answer, and the connections know that they are idle.
    tokio::time::sleep(Duration::from_millis(200)).await;
    std::mem::forget(client);
    Ok(())
}

/// Holds what the arguments say, to its end.
pub(crate) fn be_holder(arguments: Vec<String>) -> Result<ExitCode, Error> {
    let [_, name, addrs] = &arguments[..] else {
        return Err("what to hold, for which addresses?".into());
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (name, addrs) = (name.clone(), pods::addrs(addrs)?);
    // They are longer, the more pods there are.
    drop(arguments);
    runtime.block_on(hold(&name, &addrs))?;
    // What lives at the end is counted: nothing may be tidied up.
    std::mem::forget(runtime);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn report() -> Result<ExitCode, Error> {
    if !valgrind::is_installed() {
        println!("overhead: skipped, memory is counted by valgrind, which is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let pods = Pods::start(MANY)?;
    println!(
        "bytes on the heap for each, ({MANY} pods - {FEW} pods) / {}\n",
        MANY - FEW
    );
    for (name, title) in HELD {
        let of = |n| live_bytes(&[HOLDER.to_owned(), (*name).to_owned(), pods.first(n)]);
        let each = (of(MANY)? - of(FEW)?) / (MANY - FEW) as u64;
        println!("{title:44} {each:>8}");
    }
    println!("\noverhead: ok, memory has no limit, it is stated");
    Ok(ExitCode::SUCCESS)
}

/// The bytes on the heap that live when this program, called with `arguments`, ends.
fn live_bytes(arguments: &[String]) -> Result<u64, Error> {
    let options = ["--tool=dhat", "--dhat-out-file=out"];
    let log = valgrind::run("overhead", &options, arguments)?.join("log");
    // ==1234== At t-end:    12,345 bytes in 67 blocks
    let log = fs::read_to_string(log)?;
    let bytes = log.lines().find_map(|line| {
        let (_, figures) = line.split_once("At t-end:")?;
        let (bytes, _) = figures.trim().split_once(' ')?;
        bytes.replace(',', "").parse().ok()
    });
    Ok(bytes.ok_or("a log without a count")?)
}
