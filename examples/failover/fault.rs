//! What befalls the cluster, and what its manager does then.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::trial::{PROBE, Stage};
use crate::support::{Result, postgres::Truth};

/// From the fault to the promotion.
const NOTICED: Duration = Duration::from_secs(1);

/// From the fault until a zombie resumes.
const RESUMES: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Crash,
    Pmkill,
    Hang,
    Blackhole,
    Split,
    Zombie,
    Switch,
    Fenced,
    Crashloop,
    Double,
    Saturate,
    Probekill,
    Dns,
    Lagstop,
    Diverge,
    Rebuild,
    Starve,
}

impl Fault {
    pub(crate) const ALL: [Self; 17] = [
        Self::Crash,
        Self::Pmkill,
        Self::Hang,
        Self::Blackhole,
        Self::Split,
        Self::Zombie,
        Self::Switch,
        Self::Fenced,
        Self::Crashloop,
        Self::Double,
        Self::Saturate,
        Self::Probekill,
        Self::Dns,
        Self::Lagstop,
        Self::Diverge,
        Self::Rebuild,
        Self::Starve,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Pmkill => "pmkill",
            Self::Hang => "hang",
            Self::Blackhole => "blackhole",
            Self::Split => "split",
            Self::Zombie => "zombie",
            Self::Switch => "switch",
            Self::Fenced => "fenced",
            Self::Crashloop => "crashloop",
            Self::Double => "double",
            Self::Saturate => "saturate",
            Self::Probekill => "probekill",
            Self::Dns => "dns",
            Self::Lagstop => "lagstop",
            Self::Diverge => "diverge",
            Self::Rebuild => "rebuild",
            Self::Starve => "starve",
        }
    }

    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Crash => "All processes of the primary are killed.",
            Self::Pmkill => {
                "The primary's postmaster alone is killed; the others end by themselves."
            }
            Self::Hang => {
                "The primary is stopped (SIGSTOP): its kernel still accepts connections, and nobody answers."
            }
            Self::Blackhole => {
                "The primary's address falls silent, to open and to new connections."
            }
            Self::Split => {
                "A standby is promoted, and the old primary knows nothing of it: two primaries."
            }
            Self::Zombie => {
                "The primary is stopped, a standby promoted, and 10 s later the old primary wakes and goes on."
            }
            Self::Switch => {
                "A switchover: the primary is shut down, a standby promoted, the old one follows it."
            }
            Self::Fenced => "The primary takes no writes (default_transaction_read_only) for 2 s.",
            Self::Crashloop => {
                "A backend crashes, twice: the primary ends all sessions and recovers."
            }
            Self::Double => {
                "The primary is killed, and both standbys are promoted, to one timeline."
            }
            Self::Saturate => {
                "The primary has no connection left, and the probe's own session is ended, for 3 s."
            }
            Self::Probekill => "The probe's sessions are ended, five times.",
            Self::Dns => {
                "All addresses vanish from DNS and return; then the primary's pod gets another address."
            }
            Self::Lagstop => {
                "A standby's WAL receiver ends: it goes on answering reads, ever older ones."
            }
            Self::Diverge => {
                "The primary is killed, and the standby that has less of its data is promoted."
            }
            Self::Rebuild => {
                "All servers are killed, and an empty one of another cluster starts at the primary's address."
            }
            Self::Starve => "The program gets no CPU for 5 s.",
        }
    }

    /// How many changes of primary are right.
    pub(crate) fn switches(self) -> u64 {
        match self {
            Self::Fenced
            | Self::Crashloop
            | Self::Saturate
            | Self::Probekill
            | Self::Lagstop
            | Self::Starve => 0,
            _ => 1,
        }
    }

    /// Whether nobody takes writes from the fault on, for a while.
    pub(crate) fn stops_writes(self) -> bool {
        !matches!(
            self,
            Self::Split
                | Self::Saturate
                | Self::Probekill
                | Self::Dns
                | Self::Lagstop
                | Self::Diverge
                | Self::Starve
        )
    }

    /// Whether a program that writes must not notice.
    pub(crate) fn is_unnoticed(self) -> bool {
        matches!(self, Self::Saturate | Self::Probekill | Self::Lagstop)
    }

    /// Whether the pods stand behind relays.
    pub(crate) fn is_relayed(self) -> bool {
        self == Self::Blackhole
    }

    /// Lets it happen.
    pub(crate) async fn befall(self, stage: &mut Stage<'_>) -> Result<()> {
        match self {
            Self::Crash => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: kill -9, all processes");
                stage.cluster.server_mut(0).kill();
                stage.promote_after(NOTICED, 1, truth).await
            }
            Self::Pmkill => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: kill -9, the postmaster");
                stage.cluster.server_mut(0).kill_postmaster()?;
                stage.promote_after(NOTICED, 1, truth).await
            }
            Self::Hang => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: SIGSTOP, all processes");
                stage.cluster.server(0).freeze()?;
                stage.promote_after(NOTICED, 1, truth).await
            }
            Self::Blackhole => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: its address falls silent");
                let begin = Instant::now();
                stage.relays[0].silence().await?;
                stage
                    .promote_after(NOTICED.saturating_sub(begin.elapsed()), 1, truth)
                    .await
            }
            Self::Split => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: nothing at all");
                stage.promote_after(Duration::ZERO, 1, truth).await
            }
            Self::Zombie => {
                let resume = Instant::now() + RESUMES;
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: SIGSTOP, all processes");
                stage.cluster.server(0).freeze()?;
                stage.promote_after(NOTICED, 1, truth).await?;
                sleep_until(resume).await;
                stage.note("pg-0: SIGCONT, it still thinks that it is the primary");
                stage.cluster.server(0).thaw()
            }
            Self::Switch => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: fast shutdown");
                stage.cluster.server_mut(0).stop().await?;
                stage.promote_after(Duration::ZERO, 1, truth).await?;
                stage.cluster.rejoin(0, 1).await?;
                stage.note("pg-0: back as a standby of pg-1");
                Ok(())
            }
            Self::Fenced => {
                stage.note("pg-0: default_transaction_read_only = on");
                stage.cluster.server(0).fence(true).await?;
                sleep(Duration::from_secs(2)).await;
                let truth = Truth::of(stage.cluster.server(0)).await?;
                stage.cluster.server(0).fence(false).await?;
                stage.is_writable(0, truth.writable().await?);
                Ok(())
            }
            Self::Crashloop => {
                for _ in 0..2 {
                    stage.note("pg-0: kill -9, one backend");
                    stage.cluster.server(0).kill_backend().await?;
                    stage.cluster.server_mut(0).ready().await?;
                    let truth = Truth::of(stage.cluster.server(0)).await?;
                    stage.is_writable(0, truth.writable().await?);
                    sleep(Duration::from_secs(1)).await;
                }
                Ok(())
            }
            Self::Double => {
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: kill -9, all processes");
                stage.cluster.server_mut(0).kill();
                sleep(NOTICED).await;
                let (one, two) = (stage.cluster.server(1), stage.cluster.server(2));
                let promoted = tokio::join!(one.promote(), two.promote());
                promoted.0?;
                promoted.1?;
                let writable = truth.writable().await?;
                stage.note("pg-1 and pg-2: promoted, both");
                stage.story.writable = Some(writable);
                stage.story.truth.push((writable, '?'));
                Ok(())
            }
            Self::Saturate => {
                stage.note("pg-0: no connection left, none for the probe either");
                let held = stage.cluster.server(0).saturate(PROBE).await?;
                stage.note("pg-0: full");
                sleep(Duration::from_secs(3)).await;
                drop(held);
                stage.note("pg-0: there is room again");
                Ok(())
            }
            Self::Probekill => {
                for _ in 0..5 {
                    stage.note("all: the probe's session is ended");
                    for server in stage.cluster.servers() {
                        server.terminate(PROBE).await?;
                    }
                    sleep(Duration::from_millis(400)).await;
                }
                Ok(())
            }
            Self::Dns => {
                stage.note("DNS: no such name");
                stage.service.ready(Vec::<headless_lb::Address>::new());
                sleep(Duration::from_secs(3)).await;
                stage.note("DNS: the addresses are back");
                stage.service.ready(stage.cluster.addresses());
                sleep(Duration::from_secs(1)).await;
                stage.note("pg-0: restarts at another address, and DNS says so");
                stage.cluster.readdress(0).await?;
                let writable = Truth::of(stage.cluster.server(0)).await?.writable().await?;
                stage.service.ready(stage.cluster.addresses());
                stage.is_writable(0, writable.max(Instant::now()));
                Ok(())
            }
            Self::Lagstop => {
                stage.note("pg-2: its WAL receiver ends");
                stage.cluster.server(2).stop_receiver().await?;
                sleep(Duration::from_secs(2)).await;
                Ok(())
            }
            Self::Diverge => {
                stage.note("pg-1: its WAL receiver ends");
                stage.cluster.server(1).stop_receiver().await?;
                sleep(Duration::from_millis(500)).await;
                let truth = stage.candidate(1).await?;
                stage.note("pg-0: kill -9, all processes");
                stage.cluster.server_mut(0).kill();
                stage.promote_after(NOTICED, 1, truth).await?;
                stage.cluster.follow(2, 1).await
            }
            Self::Rebuild => {
                stage.note("all: kill -9");
                for number in 0..3 {
                    stage.cluster.server_mut(number).kill();
                }
                stage.cluster.rebuild(0).await?;
                let truth = Truth::of(stage.cluster.server(0)).await?;
                stage.is_writable(0, truth.writable().await?);
                Ok(())
            }
            Self::Starve => {
                stage.note("the program: no CPU");
                stage.starve(Duration::from_secs(5)).await?;
                stage.note("the program: runs again");
                Ok(())
            }
        }
    }
}
