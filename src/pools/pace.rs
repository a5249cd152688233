//! How fast connections are made.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::Mutex,
    time::{Instant, sleep_until},
};

/// At most so many connects begin within any `WINDOW`: as many as a [`PrimaryView`](crate::PrimaryView)
/// serves of those who wait. Where one primary follows another at once nobody has waited, and a full pool
/// would meet the new one with all its connects in the same instant.
const MOST: usize = 16;
const WINDOW: Duration = Duration::from_millis(10);

/// The pace of one connector.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When the last ones began. Its queue is fair, and who leaves it costs nothing.
    begun: Mutex<VecDeque<Instant>>,
}

impl Pace {
    /// Waits until one more may begin, first come, first served.
    pub(super) async fn turn(&self) {
        let mut begun = self.begun.lock().await;
        if begun.len() == MOST {
            sleep_until(begun[0] + WINDOW).await;
            begun.pop_front();
        }
        begun.push_back(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn never_more_than_sixteen_begin_within_ten_milliseconds() {
        let pace = Arc::new(Pace::default());
        let mut tasks = JoinSet::new();
        for _ in 0..100 {
            let pace = Arc::clone(&pace);
            tasks.spawn(async move {
                pace.turn().await;
                Instant::now()
            });
        }
        let mut begun = tasks.join_all().await;
        begun.sort();
        for window in begun.windows(MOST + 1) {
            assert!(window[MOST] - window[0] >= WINDOW);
        }
        assert!(begun[99] - begun[0] <= 7 * WINDOW);
    }

    #[tokio::test(start_paused = true)]
    async fn one_who_gave_up_takes_no_turn() {
        let pace = Pace::default();
        for _ in 0..MOST {
            pace.turn().await;
        }
        let start = Instant::now();
        timeout(WINDOW / 2, pace.turn()).await.unwrap_err();
        pace.turn().await;
        assert_eq!(start.elapsed(), WINDOW);
    }
}
