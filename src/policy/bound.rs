//! How much of the load one endpoint may have where keys decide: "Consistent Hashing with Bounded Loads"
//! (Mirrokni, Thorup, Zadimoghaddam, SODA 2018).

use crate::{endpoint::Endpoint, set::Candidates};

/// So many times the mean load, rounded up; infinity without a bound.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound(f32);

/// An endpoint with fewer requests in flight is never full: while there is little load, it matters more that a key
/// stays where its data are. Our own number.
const FREE: u32 = 4;

impl Bound {
    pub(super) const NONE: Self = Self(f32::INFINITY);

    /// Below 1 the loads could not fit, and little above it nearly all keys move with each request.
    pub(super) fn new(times: f32) -> Self {
        Self(times.max(1.0))
    }

    /// How many requests in flight make an endpoint full, if any number does. The one to be placed counts too.
    pub(super) fn of(self, candidates: Candidates<'_>) -> Option<u32> {
        if self.0 == f32::INFINITY {
            return None;
        }
        let mut sum = 1.0;
        candidates.each_from(0, &mut |_, endpoint: &Endpoint| {
            sum += f64::from(endpoint.pending());
        });
        let share = f64::from(self.0) * sum / candidates.len() as f64;
        Some((share.ceil() as u32).max(FREE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::set_of;

    #[test]
    fn an_endpoint_is_full_from_its_share_of_the_load_on_and_never_below_four() {
        let set = set_of(10);
        let full = |times| Bound::new(times).of(set.available());
        assert_eq!(Bound::NONE.of(set.available()), None);
        assert_eq!(full(1.25), Some(4));
        let requests = |n| -> Vec<_> {
            let busy = set.iter().next().unwrap();
            (0..n).map(|_| busy.begin()).collect()
        };
        // 1.25 * (63 + 1) / 10 = 8, and one more makes it 9.
        let _some = requests(63);
        assert_eq!(full(1.25), Some(8));
        let _one = requests(1);
        assert_eq!(full(1.25), Some(9));
        assert_eq!(full(2.0), Some(13));
        assert_eq!(full(0.5), full(1.0), "they would not fit");
    }
}
