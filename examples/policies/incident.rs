//! What is odd about the pods, and when.

use rand::RngExt;
use rand_distr::{Distribution, Exp1};

use super::{
    engine::{Nanos, SECOND},
    pod::Mode,
    traffic::Stream,
};

/// How a pod ends that left DNS.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Ending {
    Refuses,
    FallsSilent,
}

/// What is odd in a scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Incident {
    Nothing,
    /// The first fifth of the pods works at half speed.
    HalfSpeed,
    /// 30 % of the pods work at speed 1, the others at 1.5 to 3.
    Unequal,
    /// The first pod is 10 times slower for a time.
    Slow {
        from: Nanos,
        until: Nanos,
    },
    /// The first pods are in this mode for a time.
    Odd {
        mode: Mode,
        pods: u32,
        from: Nanos,
        until: Nanos,
    },
    /// Every pod is at a third of its speed for `slow` on average, every `every` on average.
    Antagonists {
        slow: Nanos,
        every: Nanos,
    },
    /// From `from` on, one pod a second is replaced by one that is three times slower for 5 s.
    Rolling {
        from: Nanos,
        drain: Nanos,
        ending: Ending,
    },
    /// From `from` on, a pod joins every 5 s, four in all, three times slower for 5 s.
    ColdJoins {
        from: Nanos,
    },
}

/// A change of one pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) at: Nanos,
    pub(crate) pod: u32,
    pub(crate) to: To,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    Speed(f64),
    Mode(Mode),
}

/// A pod's life, before anything happens to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    pub(crate) speed: f64,
    /// In DNS from ... to.
    pub(crate) listed: (Nanos, Nanos),
}

const SLOW: f64 = 0.1;
const ANTAGONIST: f64 = 0.33;
const COLD: f64 = 1.0 / 3.0;
const COLD_FOR: Nanos = 5 * SECOND;
const ALWAYS: (Nanos, Nanos) = (0, Nanos::MAX);
/// How many join a running set, and how far apart.
const JOINS: u32 = 4;
const JOIN_EVERY: Nanos = 5 * SECOND;

impl Incident {
    /// How much work `pods` of these do, in units of one ordinary pod.
    pub(crate) fn capacity(self, pods: u32) -> f64 {
        let pods = f64::from(pods);
        match self {
            Self::HalfSpeed => pods * (0.8 + 0.2 * 0.5),
            Self::Slow { from: 0, .. } => pods - 1.0 + SLOW,
            Self::Antagonists { slow, every } => {
                let (slow, every) = (slow as f64, every as f64);
                pods * (every + slow * ANTAGONIST) / (every + slow)
            }
            // Those are loaded by what their slowest could do (Prequal's ramp).
            Self::Unequal
            | Self::Nothing
            | Self::Slow { .. }
            | Self::Odd { .. }
            | Self::Rolling { .. }
            | Self::ColdJoins { .. } => pods,
        }
    }

    /// The pods that will be there at some time, and what happens to them until `end`.
    pub(crate) fn plan(
        self,
        pods: u32,
        end: Nanos,
        stream: &mut Stream,
    ) -> (Vec<Life>, Vec<Change>) {
        let ordinary = Life {
            speed: 1.0,
            listed: ALWAYS,
        };
        let mut lives = vec![ordinary; pods as usize];
        let mut changes = Vec::new();
        let mut change = |at, pod, to| changes.push(Change { at, pod, to });
        match self {
            Self::Nothing => {}
            Self::HalfSpeed => {
                for life in &mut lives[..pods as usize / 5] {
                    life.speed = 0.5;
                }
            }
            Self::Unequal => {
                for life in &mut lives[pods as usize * 3 / 10..] {
                    life.speed = stream.random_range(1.5..3.0);
                }
            }
            Self::Slow { from, until } => {
                change(from, 0, To::Speed(SLOW));
                change(until, 0, To::Speed(1.0));
            }
            Self::Odd {
                mode,
                pods,
                from,
                until,
            } => {
                for pod in 0..pods {
                    change(from, pod, To::Mode(mode));
                    change(until, pod, To::Mode(Mode::Serves));
                }
            }
            Self::Antagonists { slow, every } => {
                let mut length = |mean: Nanos| -> Nanos {
                    let draw: f64 = Exp1.sample(stream);
                    (draw * mean as f64) as Nanos
                };
                for pod in 0..pods {
                    let mut at = length(every);
                    while at < end {
                        change(at, pod, To::Speed(ANTAGONIST));
                        at += length(slow);
                        change(at, pod, To::Speed(1.0));
                        at += length(every);
                    }
                }
            }
            Self::Rolling {
                from,
                drain,
                ending,
            } => {
                let mode = match ending {
                    Ending::Refuses => Mode::Refuses,
                    Ending::FallsSilent => Mode::Silent,
                };
                for old in 0..pods {
                    let at = from + Nanos::from(old) * SECOND;
                    lives[old as usize].listed.1 = at;
                    change(at + drain, old, To::Mode(mode));
                    lives.push(Life {
                        speed: COLD,
                        listed: (at, Nanos::MAX),
                    });
                    change(at + COLD_FOR, pods + old, To::Speed(1.0));
                }
            }
            Self::ColdJoins { from } => {
                for new in 0..JOINS {
                    let at = from + Nanos::from(new) * JOIN_EVERY;
                    lives.push(Life {
                        speed: COLD,
                        listed: (at, Nanos::MAX),
                    });
                    change(at + COLD_FOR, pods + new, To::Speed(1.0));
                }
            }
        }
        (lives, changes)
    }

    /// Whether this pod is one that is looked at, and since when.
    pub(crate) fn is_odd(self, pod: u32, pods: u32) -> bool {
        match self {
            Self::Slow { .. } => pod == 0,
            Self::Odd { pods, .. } => pod < pods,
            Self::HalfSpeed => pod < pods / 5,
            Self::ColdJoins { .. } => pod >= pods,
            _ => false,
        }
    }

    /// From when to when it is odd.
    pub(crate) fn span(self) -> Option<(Nanos, Nanos)> {
        match self {
            Self::Slow { from, until } | Self::Odd { from, until, .. } => Some((from, until)),
            _ => None,
        }
    }
}
