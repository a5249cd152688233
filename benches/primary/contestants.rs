//! What programs that write ask of the view of the primary, as closures to measure.

use std::{
    fmt,
    hint::black_box,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use futures_util::FutureExt;
use headless_lb::{
    Address, Balancer, Driver, Endpoint, Fixed, Observation, ProbeError, Role, Term, probe_fn,
};
use tokio::runtime::{self, Runtime};

/// More than any of it takes: a question that waits fails the run.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two publications. A cluster whose pods come and go publishes a few times a second.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);

/// What is done with each of them.
pub(crate) trait Visitor {
    fn visit(&mut self, row: Row, question: &(impl Fn() + Sync));
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Get,
    IsCurrent,
    Wait,
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pub(crate) question: Question,
    /// Whether sets are published meanwhile.
    pub(crate) publishing: bool,
}

/// Visits every question, while nothing is published.
pub(crate) fn visit_quiet(visitor: &mut impl Visitor) {
    let database = Database::start();
    visit(&database.db, false, visitor);
}

/// Visits every question, while a set is published every millisecond; how many were.
pub(crate) fn visit_publishing(visitor: &mut impl Visitor) -> u64 {
    let Database {
        db,
        driver,
        runtime,
    } = Database::start();
    let (before, ended) = (db.endpoints().generation(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(publish(&db, driver, &ended)));
        visit(&db, true, visitor);
        ended.store(true, Relaxed);
    });
    db.endpoints().generation() - before
}

fn visit(db: &Balancer, publishing: bool, visitor: &mut impl Visitor) {
    let row = |question| Row {
        question,
        publishing,
    };
    let primary = db.primary();
    visitor.visit(row(Question::Get), &|| {
        drop(black_box(primary.get()));
    });
    visitor.visit(row(Question::Wait), &|| {
        let waited = primary.wait(PATIENCE).now_or_never();
        drop(black_box(waited.expect("there is a primary")));
    });
    let writer = primary.get().expect("there is a primary");
    visitor.visit(row(Question::IsCurrent), &|| {
        black_box(black_box(&writer).is_current());
    });
    assert!(writer.is_current(), "the primary was never lost");
}

/// A primary and two replicas, whose driver has found them.
struct Database {
    db: Balancer,
    /// Without it discovery has ended, and nobody is the primary.
    driver: Driver,
    runtime: Runtime,
}

impl Database {
    fn start() -> Self {
        let role = |endpoint: &Endpoint| {
            let seen = match endpoint.ordinal() {
                Some(0) => Observation::of(Role::Primary).in_term(Term::new(1)),
                _ => Role::Replica.into(),
            };
            async { Ok::<_, ProbeError>(seen) }
        };
        let pod =
            |i: u8| Address::from(SocketAddr::from(([10, 0, 0, i], 5432))).named(format!("db-{i}"));
        let builder = Balancer::builder(Fixed::new((0..3).map(pod))).probe(probe_fn(role));
        let runtime = runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime with a timer alone needs nothing");
        let (db, driver) = runtime.block_on(async {
            let (db, mut driver) = builder.build();
            let primary = db.primary();
            tokio::select! {
                _ = &mut driver => unreachable!("a handle is alive"),
                found = primary.wait(PATIENCE) => drop(found.expect("one says that it is")),
            }
            (db, driver)
        });
        Self {
            db,
            driver,
            runtime,
        }
    }
}

/// A replica is set aside and taken back, again and again: each is a new set.
async fn publish(db: &Balancer, driver: Driver, ended: &AtomicBool) {
    let endpoints = db.endpoints();
    let replica: &Arc<Endpoint> = endpoints.iter().last().expect("there are three");
    let changes = async {
        while !ended.load(Relaxed) {
            db.unreachable(replica);
            tokio::time::sleep(PUBLISH_EVERY).await;
            db.reached(replica);
            tokio::time::sleep(PUBLISH_EVERY).await;
        }
    };
    tokio::select! {
        () = driver => unreachable!("a handle is alive"),
        () = changes => {}
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.question {
            Question::Get => "primary().get()",
            Question::IsCurrent => "is_current()",
            Question::Wait => "primary().wait()",
        })?;
        f.write_str(if self.publishing { ", publishing" } else { "" })
    }
}
