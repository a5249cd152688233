//! Watches a headless service and prints what becomes of it, one line each: pods that come and go,
//! and answers that are not what they were.
//!
//! In a pod, or on any machine: `cargo run --example watch -- NAME:PORT`, through the name servers
//! of `/etc/resolv.conf`. Without a cluster, `cargo run --example playground` starts one and prints
//! the command. Look at how a pod's line follows the cluster, and at what a failing name server or
//! NXDOMAIN does *not* do: the set stays as it is until that is sure. Ctrl-C ends it with a
//! summary.

use std::{
    env,
    error::Error,
    fmt,
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use headless_lb::{Balancer, Change, Dns, Status};
use tokio::{
    signal::ctrl_c,
    time::{interval, sleep},
};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: watch NAME:PORT [--server IP:PORT] [--for SECONDS]
       watch --srv NAME:PORTNAME [--server IP:PORT] [--for SECONDS]

  NAME:PORT         a headless service and the port that its containers listen on
  --srv             ask for SRV records: pod names, and each pod's own port. The port goes by its
                    name then: web.shop:http, or as DNS has it, _http._tcp.web.shop
  --server IP:PORT  ask this name server (default: those of /etc/resolv.conf)
  --for SECONDS     end after this long (default: with Ctrl-C)";

/// How soon a changed outcome shows. Reading the status costs nothing that anybody waits for.
const GLANCE: Duration = Duration::from_millis(50);

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    if env::args().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let parsed = Args::parse(env::args().skip(1)).and_then(|args| Ok((args.source()?, args.bound)));
    let (source, bound) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("watch: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match watch(source, bound).await {
        Ok(()) => ExitCode::SUCCESS,
        // Nobody reads any more: `watch .. | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("watch: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn watch(source: Dns, bound: Option<Duration>) -> io::Result<()> {
    let balancer = Balancer::builder(source).spawn();
    let mut changes = balancer.subscribe();
    let mut glance = interval(GLANCE);
    let end = sleep(bound.unwrap_or(Duration::MAX));
    tokio::pin!(end);

    line(format_args!("  watching {}", balancer.status().service()))?;
    let (mut count, mut last) = (0, Outcome::default());
    loop {
        tokio::select! {
            _ = glance.tick() => last = last.or_tell(&balancer.status())?,
            change = changes.next() => match change {
                Some(change) => {
                    // The answer comes before what it changed.
                    last = last.or_tell(&balancer.status())?;
                    tell_change(&change, &balancer.status())?;
                    count += 1;
                }
                None => break,
            },
            interrupted = ctrl_c() => {
                interrupted?;
                break;
            }
            () = &mut end => break,
        }
    }
    let endpoints = balancer.endpoints().len();
    writeln!(
        io::stdout(),
        "watch: ok changes={count} endpoints={endpoints}"
    )
}

/// What of a status is worth a line when it changes.
#[derive(PartialEq, Eq, Default)]
struct Outcome {
    label: &'static str,
    pending_empty: u32,
    counts_down: bool,
}

impl Outcome {
    /// Prints the status if its outcome is another one. Returns the outcome last told.
    fn or_tell(self, status: &Status) -> io::Result<Self> {
        let now = Self {
            label: status.outcome(),
            pending_empty: status.pending_empty(),
            counts_down: status.ttl_counts_down(),
        };
        if now == self || now.label == "unasked" {
            return Ok(self);
        }
        let mut text = format!("  {}{}", now.label, details(status));
        if let Some(error) = status.error() {
            text += &format!(": {error}");
        }
        if now.pending_empty > 0 {
            text += &format!("; heard {}x, not believed yet", now.pending_empty);
        }
        if status.error().is_some() && status.endpoints() > 0 {
            text += &format!("; keeping {} endpoints", status.endpoints());
        }
        if now.counts_down {
            text += "; the TTL counts down: a cache answers, and changes come late";
        }
        line(format_args!("{text}"))?;
        Ok(now)
    }
}

fn tell_change(change: &Change, status: &Status) -> io::Result<()> {
    let total = change.set().len();
    let added = change.added().iter().map(|endpoint| ('+', endpoint));
    let removed = change.removed().iter().map(|endpoint| ('-', endpoint));
    for (sign, endpoint) in added.chain(removed) {
        let (endpoint, outcome, details) =
            (endpoint.to_string(), status.outcome(), details(status));
        line(format_args!(
            "{sign} {endpoint:<28} {outcome}{details}, {total} endpoints"
        ))?;
    }
    Ok(())
}

/// One line with the time.
fn line(text: fmt::Arguments<'_>) -> io::Result<()> {
    writeln!(io::stdout(), "{} {text}", utc())
}

/// Record type and TTL, as far as the answer told them.
fn details(status: &Status) -> String {
    let record = status.record().map(|record| format!(" {record}"));
    let ttl = status.ttl().map(|ttl| format!(" ttl {} s", ttl.as_secs()));
    record.unwrap_or_default() + &ttl.unwrap_or_default()
}

/// The time of day, hh:mm:ss.mmm.
fn utc() -> String {
    // A clock before 1970 is wrong anyway.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let (seconds, millis) = (now.as_secs() % 86_400, now.subsec_millis());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}.{millis:03}", seconds % 60)
}

struct Args {
    name: String,
    server: Option<SocketAddr>,
    srv: bool,
    bound: Option<Duration>,
}

impl Args {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let (mut name, mut server, mut srv, mut bound) = (None, None, false, None);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match &*arg {
                "--server" => {
                    let value = value()?;
                    let address = value
                        .parse()
                        .map_err(|_| format!("--server {value}: not IP:PORT"))?;
                    server = Some(address);
                }
                "--for" => {
                    let value = value()?;
                    let seconds = value
                        .parse()
                        .ok()
                        .and_then(|s| Duration::try_from_secs_f64(s).ok());
                    bound = Some(
                        seconds.ok_or_else(|| format!("--for {value}: not a number of seconds"))?,
                    );
                }
                "--srv" => srv = true,
                flag if flag.starts_with('-') => {
                    return Err(format!("unknown option {flag}").into());
                }
                _ if name.is_some() => return Err(format!("one name only, not also {arg}").into()),
                _ => name = Some(arg),
            }
        }
        let name = name.ok_or("which name?")?;
        Ok(Self {
            name,
            server,
            srv,
            bound,
        })
    }

    fn source(&self) -> Result<Dns> {
        let source = if self.srv && self.name.starts_with('_') {
            Dns::srv(&self.name)?
        } else if self.srv {
            let (name, port) = self
                .name
                .rsplit_once(':')
                .filter(|(_, port)| port.parse::<u16>().is_err())
                .ok_or("SRV records go by the port's name: give NAME:PORTNAME")?;
            Dns::srv(&format!("_{port}._tcp.{name}"))?
        } else {
            let (name, port) = self
                .name
                .rsplit_once(':')
                .ok_or("A and AAAA records tell no port: give NAME:PORT, or --srv")?;
            Dns::headless(
                name,
                port.parse().map_err(|_| format!("{port} is not a port"))?,
            )?
        };
        Ok(match self.server {
            Some(server) => source.name_servers([server]),
            None => source,
        })
    }
}
