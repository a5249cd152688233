//! How far replicas are behind, by one observer of both: the primary's positions over time.
//!
//! What a replica says of itself tells nothing: one whose receiver is dead has applied all that it
//! received. The primary's position minus the replica's does (the note on primaries, 2.3).

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// So many samples are kept: at four a second, two minutes of a busy primary before any is thinned out.
const SAMPLES: usize = 512;

/// Samples that are thinned out leave no gap longer than their age divided by this, and 512 of them reach
/// back for a day: some 32 for each doubling of the age.
const EXACTNESS: u32 = 16;

/// Where the primary was, and when: both only grow.
///
/// A time lag is exact to one interval of the probe, or a sixteenth of itself where samples were thinned
/// out; it is never overstated.
#[derive(Debug, Default)]
pub(super) struct Ring {
    samples: VecDeque<Sample>,
    /// The last look at the primary, and until when it counts.
    latest: Option<(Sample, Instant)>,
}

/// A position in bytes, and when it was observed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) position: u64,
}

/// What a replica lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Ring {
    /// The primary is at `position`, which counts until `until`.
    pub(super) fn push(&mut self, now: Instant, position: u64, until: Instant) {
        let sample = Sample { at: now, position };
        self.latest = Some((sample, until));
        // A new primary goes on from where it was promoted; what the old one wrote above that is lost.
        while self
            .samples
            .back()
            .is_some_and(|last| last.position > position)
        {
            self.samples.pop_back();
        }
        // An idle primary stays at one position: it was there when that was first seen.
        if self
            .samples
            .back()
            .is_none_or(|last| last.position < position)
        {
            self.samples.push_back(sample);
        }
        if self.samples.len() > SAMPLES {
            self.thin(now);
        }
    }

    /// What a replica at `position` lacks now; `None` without a fresh look at the primary.
    pub(super) fn behind(&self, now: Instant, position: u64) -> Option<Behind> {
        let (latest, until) = self.latest?;
        if until <= now {
            return None;
        }
        let reached = self
            .samples
            .partition_point(|sample| sample.position <= position);
        let missed = self.samples.get(reached);
        Some(Behind {
            bytes: latest.position.saturating_sub(position),
            time: missed.map_or(Duration::ZERO, |sample| {
                now.saturating_duration_since(sample.at)
            }),
        })
    }

    /// The last look at the primary.
    pub(super) fn latest(&self) -> Option<Sample> {
        self.latest.map(|(sample, _)| sample)
    }

    /// Until when the last look counts.
    pub(super) fn until(&self) -> Option<Instant> {
        self.latest.map(|(_, until)| until)
    }

    /// Nobody is the primary now, or it was not seen lately: its past positions stay.
    pub(super) fn lose(&mut self) {
        self.latest = None;
    }

    /// The data are others now.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Makes room: drops samples between two that are close together for their age, or else the oldest.
    fn thin(&mut self, now: Instant) {
        let before = self.samples.len();
        let mut kept: VecDeque<Sample> = VecDeque::with_capacity(SAMPLES + 1);
        for i in 0..before {
            let sample = self.samples[i];
            let is_spare = kept
                .back()
                .zip(self.samples.get(i + 1))
                .is_some_and(|(last, next)| {
                    let age = now.saturating_duration_since(next.at);
                    next.at.saturating_duration_since(last.at) <= age / EXACTNESS
                });
            if !is_spare {
                kept.push_back(sample);
            }
        }
        if kept.len() == before {
            kept.pop_front();
        }
        self.samples = kept;
    }
}

/// What a replica's own positions say: whether it has what the primary has not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trail {
    /// Its last position.
    pub(super) last: Option<Sample>,
    /// An earlier one, which no later look at the primary was compared with yet, and the generation then.
    unchecked: Option<(Sample, u64)>,
    pub(super) diverged: bool,
    /// The last generation in which it was seen at a position that the primary has.
    agreed: u64,
}

impl Trail {
    /// One that begins here: of a node that follows nobody.
    pub(super) fn at(now: Instant, position: u64) -> Self {
        Self {
            last: Some(Sample { at: now, position }),
            ..Self::default()
        }
    }

    /// Compares with the primary, and goes on from `position`.
    ///
    /// `primary` was observed no earlier than `timeout` before it was reported, so that it counts as later
    /// only if it was reported so much later: reports of different nodes may overtake each other.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        position: u64,
        primary: Option<Sample>,
        timeout: Duration,
        generation: u64,
    ) {
        let here = Sample { at: now, position };
        if let (Some((earlier, then)), Some(primary)) = (self.unchecked, primary)
            && primary.at.saturating_duration_since(earlier.at) > timeout
        {
            self.diverged = earlier.position > primary.position;
            self.unchecked = None;
            if !self.diverged {
                self.agreed = self.agreed.max(then);
            }
        }
        // It went back, as after a rewind: what it said before it says no more.
        if self
            .unchecked
            .is_some_and(|(earlier, _)| earlier.position > position)
        {
            self.unchecked = None;
        }
        self.unchecked.get_or_insert((here, generation));
        self.last = Some(here);
        if primary.is_some_and(|primary| position <= primary.position) {
            self.agreed = generation;
        }
    }

    /// Whether its position says how far it follows the primary of this generation, the last one.
    ///
    /// While both write, a replica is ahead of an older look at the primary. After a switch it may be so
    /// because it has what the new primary has not: until a later look tells, nobody knows. The first primary is
    /// taken on trust, or else no replica of a busy one would be fresh in a program's first second.
    pub(super) fn agrees(&self, generation: u64) -> bool {
        !self.diverged && (self.agreed == generation || generation <= 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_millis(250);
    const TIMEOUT: Duration = Duration::from_millis(500);

    /// A primary that writes 100 bytes a probe for so many probes; the ring and the end.
    fn written(probes: u32) -> (Ring, Instant, Instant) {
        let (start, mut ring) = (Instant::now(), Ring::default());
        let mut now = start;
        for i in 0..probes {
            now = start + INTERVAL * i;
            ring.push(now, u64::from(i) * 100, now + SECOND);
        }
        (ring, start, now)
    }

    #[test]
    fn lag_of_a_dead_receiver_is_what_the_primary_wrote_since() {
        let (ring, start, now) = written(101);
        // It applied all it received: by itself it lacks nothing.
        let behind = ring.behind(now, 2000).unwrap();
        assert_eq!(behind.bytes, 8000);
        // The primary passed 2000 with its 21st sample.
        assert_eq!(behind.time, now - (start + INTERVAL * 21));
    }

    #[test]
    fn lag_of_an_idle_primary_is_none_however_long_it_wrote_nothing() {
        let (mut ring, _, mut now) = written(5);
        for _ in 0..1000 {
            now += INTERVAL;
            ring.push(now, 400, now + SECOND);
        }
        let behind = |position| ring.behind(now, position).unwrap();
        assert_eq!((behind(400).bytes, behind(400).time), (0, Duration::ZERO));
        assert_eq!(behind(350).bytes, 50);
        assert!(ring.samples.len() <= 5, "an idle primary adds no samples");
    }

    #[test]
    fn lag_is_unknown_without_a_fresh_look_at_the_primary() {
        let (mut ring, _, now) = written(5);
        assert!(ring.behind(now + SECOND - INTERVAL, 0).is_some());
        assert_eq!(ring.behind(now + SECOND, 0), None);
        ring.lose();
        assert_eq!(ring.behind(now, 0), None);
        assert_eq!(Ring::default().behind(now, 0), None);
    }

    #[test]
    fn lag_stays_exact_to_a_sixteenth_for_a_day_in_bounded_memory() {
        let probes = 24 * 3600 * 4;
        let (start, mut ring) = (Instant::now(), Ring::default());
        for i in 0..=probes {
            let now = start + INTERVAL * i;
            ring.push(now, u64::from(i) * 100, now + SECOND);
            assert!(ring.samples.len() <= SAMPLES);
        }
        let now = start + INTERVAL * probes;
        for behind in (1..probes).step_by(997) {
            let exact = INTERVAL * (behind - 1);
            let told = ring
                .behind(now, u64::from(probes - behind) * 100)
                .unwrap()
                .time;
            let tolerance = exact / EXACTNESS + INTERVAL;
            assert!(
                told <= exact && exact - told <= tolerance,
                "{told:?} for {exact:?}"
            );
        }
    }

    #[test]
    fn a_new_primary_goes_on_below_what_the_old_one_wrote_last() {
        let (mut ring, start, now) = written(11);
        let promoted = now + SECOND;
        ring.push(promoted, 650, promoted + SECOND);
        let behind = ring.behind(promoted, 200).unwrap();
        assert_eq!(behind.bytes, 450);
        assert_eq!(
            behind.time,
            promoted - (start + INTERVAL * 3),
            "common history still counts"
        );
        assert_eq!(ring.behind(promoted, 650).unwrap().time, Duration::ZERO);
    }

    #[test]
    fn a_replica_above_a_later_primary_sample_diverged_until_it_agrees() {
        let start = Instant::now();
        let mut trail = Trail::default();
        let primary = |at, position| Some(Sample { at, position });
        trail.follow(start, 1056, primary(start, 1000), TIMEOUT, 1);
        assert!(!trail.diverged, "that sample may be the older of the two");
        let soon = start + TIMEOUT;
        trail.follow(soon, 1056, primary(soon, 1000), TIMEOUT, 1);
        assert!(!trail.diverged, "its report may have waited for so long");
        let later = start + SECOND;
        trail.follow(later, 1056, primary(later, 1000), TIMEOUT, 1);
        assert!(trail.diverged);
        let agreed = start + SECOND * 3;
        trail.follow(agreed, 1056, primary(agreed, 1100), TIMEOUT, 1);
        assert!(!trail.diverged);
    }

    #[test]
    fn a_replica_that_keeps_up_never_diverged() {
        let start = Instant::now();
        let mut trail = Trail::default();
        for i in 0..100_u32 {
            let now = start + INTERVAL * i;
            // It is asked after the primary, which wrote meanwhile.
            let primary = Sample {
                at: now,
                position: u64::from(i) * 100,
            };
            trail.follow(now, u64::from(i) * 100 + 40, Some(primary), TIMEOUT, 1);
            assert!(!trail.diverged);
        }
    }
}
