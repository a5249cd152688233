//! Which pods a client uses, where it does not use all.

use rand::{Rng, SeedableRng};

use super::traffic::Stream;

/// The `k` pods with the least hash of client and pod, for each client.
pub(crate) fn rendezvous(clients: u32, pods: u32, k: u32) -> Vec<Vec<u32>> {
    let hash = |client: u32, pod: u32| {
        Stream::seed_from_u64(u64::from(client) << 32 | u64::from(pod)).next_u64()
    };
    let of_client = |client| {
        let mut order: Vec<(u64, u32)> = (0..pods).map(|pod| (hash(client, pod), pod)).collect();
        order.sort_unstable();
        order.iter().take(k as usize).map(|(_, pod)| *pod).collect()
    };
    (0..clients).map(of_client).collect()
}
