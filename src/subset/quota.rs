//! How many pods a client takes, and how many clients a pod.

/// A client that takes fewer pods sees too little of them to tell a slow one, and loses much with each: 20 keeps
/// the signal of a policy and leaves 5 % to one pod (gRPC's A68 and Finagle's aperture work in this range).
const LEAST_PODS: usize = 20;
/// So many clients a pod at least, if there are enough: with random choices at one client a pod 37 % of the pods
/// would get none, at ten 0.005 % (e^-1, e^-10).
const CLIENTS_A_POD: usize = 10;
/// Room above the mean load, in percent: the last clients still find pods that are free and not far away.
const ROOM: usize = 2;
/// A number is kept while the new one is within one part of so many: a cap that moves from 20 to 21 moves
/// 4.7 % of all connections (simulated), and pods come and go all the time.
const STEADY: usize = 20;

/// How many pods each client takes, and how many clients a pod takes at most.
///
/// ```
/// use headless_lb::subset::Quota;
///
/// let quota = Quota::of(1_000, 1_000, None);
/// assert_eq!((quota.size(), quota.cap()), (20, 21)); // mean 20, 2 % of room, rounded up
/// let few = Quota::of(50, 1_000, None);
/// assert_eq!((few.size(), few.cap()), (200, 11)); // ten clients for each pod
/// let alone = Quota::of(1, 1_000, Some(20));
/// assert_eq!(alone.size(), 1_000); // nobody else would use the others
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    size: usize,
    cap: usize,
}

impl Quota {
    /// For so many clients of so many pods. `size`: pods for each client; `None`: 20, or as many as give each
    /// pod ten clients. A lone client takes all pods, whatever `size` says.
    pub fn of(clients: usize, pods: usize, size: Option<usize>) -> Self {
        Self::after(None, clients, pods, size)
    }

    /// The same, where another quota was in force: its numbers stay while the new ones are within 5 % of them.
    #[must_use]
    pub fn after(before: Option<Self>, clients: usize, pods: usize, size: Option<usize>) -> Self {
        let clients = clients.max(1);
        let wanted = match size {
            _ if clients == 1 => pods,
            Some(size) => size.max(1),
            None => LEAST_PODS.max((CLIENTS_A_POD * pods).div_ceil(clients)),
        };
        // All of them is no number to be steady about: a new pod is one of all.
        let size = if wanted >= pods {
            pods
        } else {
            steady(before.map(|before| before.size), wanted).min(pods)
        };
        let cap = ((100 + ROOM) * clients * size).div_ceil(100 * pods.max(1));
        let cap = steady(before.map(|before| before.cap), cap);
        Self { size, cap }
    }

    /// Pods for each client.
    pub fn size(self) -> usize {
        self.size
    }

    /// Clients for each pod, at most.
    pub fn cap(self) -> usize {
        self.cap
    }
}

fn steady(before: Option<usize>, now: usize) -> usize {
    before
        .filter(|&before| now.abs_diff(before) * STEADY <= before)
        .unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(clients: usize, pods: usize, size: Option<usize>) -> (usize, usize) {
        let quota = Quota::of(clients, pods, size);
        (quota.size(), quota.cap())
    }

    #[test]
    fn the_numbers_are_those_of_the_formula_by_hand() {
        // k = clamp(max(20, ceil(10 M / N)), M), cap = ceil(1.02 N k / M).
        assert_eq!(numbers(1000, 1000, None), (20, 21)); // 20.4
        assert_eq!(numbers(100, 1000, None), (100, 11)); // 10.2
        assert_eq!(numbers(1000, 100, None), (20, 204)); // 204.0
        assert_eq!(numbers(37, 211, None), (58, 11)); // 57.03 -> 58; 10.37 -> 11
        assert_eq!(numbers(1000, 1000, Some(50)), (50, 51)); // 51.0
        assert_eq!(numbers(3, 1000, Some(50)), (50, 1)); // 0.153
        assert_eq!(numbers(10, 15, None), (15, 11)); // fewer than 20 pods: all
        assert_eq!(numbers(4, 0, None), (0, 0));
    }

    #[test]
    fn a_lone_client_takes_all() {
        assert_eq!(numbers(1, 1000, None).0, 1000);
        assert_eq!(numbers(1, 1000, Some(20)).0, 1000);
        assert_eq!(numbers(0, 1000, Some(20)).0, 1000);
        assert_eq!(numbers(2, 1000, Some(20)).0, 20);
    }

    #[test]
    fn numbers_stay_within_five_percent_and_no_further() {
        let before = Quota { size: 100, cap: 20 };
        let after = |clients, pods| Quota::after(Some(before), clients, pods, None);
        assert_eq!(after(100, 1050).size(), 100); // 105 is asked for
        assert_eq!(after(100, 1051).size(), 106);
        let cap = |cap, clients| {
            Quota::after(Some(Quota { size: 20, cap }), clients, 1000, Some(20)).cap()
        };
        assert_eq!(cap(20, 1000), 20, "21 is 5 % more");
        assert_eq!(cap(21, 970), 21, "19.788 asks for 20");
        assert_eq!(cap(21, 1100), 23, "22.44 asks for 23, 9.5 % more");
    }

    #[test]
    fn a_new_pod_is_taken_at_once_by_those_who_take_all() {
        let before = Quota::of(10, 100, None);
        assert_eq!(before.size(), 100);
        assert_eq!(Quota::after(Some(before), 10, 101, None).size(), 101);
    }
}
