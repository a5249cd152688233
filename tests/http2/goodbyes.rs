//! Pods that say goodbye hundreds of times under load: moments that one goodbye meets once in a thousand, and
//! most often in a release build.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use headless_lb::{Error, Http, HttpError};
use tokio::{task::JoinSet, time::sleep};

use super::{Client, all, call, over, pending, pod::Pod, pods, read, request, until};

const CALLERS: usize = 16;
const GOODBYES: usize = 500;

#[derive(Default)]
struct Outcomes {
    answered: Vec<String>,
    failed: Vec<(String, Error<HttpError>)>,
}

#[derive(Default)]
struct Course {
    stop: AtomicBool,
    answered: AtomicUsize,
}

/// Posts without pause, every second order without a body. Each has a path of its own.
async fn post(client: Client, caller: usize, course: Arc<Course>) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for n in 0.. {
        if course.stop.load(Relaxed) {
            break;
        }
        let path = format!("/{caller}/{n}");
        let body = if n % 2 == 0 { "" } else { "order" };
        match call(&client, request("POST", &path, body)).await {
            Ok(response) => {
                read(response).await;
                course.answered.fetch_add(1, Relaxed);
                outcomes.answered.push(path);
            }
            Err(error) => outcomes.failed.push((path, error)),
        }
    }
    outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_post_is_lost_or_seen_twice_and_what_was_not_seen_goes_elsewhere() {
    let pods = pods::<3>().await;
    // A goodbye every few milliseconds may meet one request again and again.
    let client = over(all(&pods))
        .max_attempts(20)
        .spawn_http_with(Http::new().http2());
    let course = Arc::new(Course::default());
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(post(client.clone(), caller, Arc::clone(&course)));
    }
    for n in 0..GOODBYES {
        let answered = course.answered.load(Relaxed);
        sleep(Duration::from_millis(3)).await;
        // On a machine too busy to answer one request of each pod meanwhile, no pod would be left.
        until("requests go on", || {
            course.answered.load(Relaxed) >= answered + pods.len()
        })
        .await;
        pods[n % pods.len()].say_goodbye();
    }
    course.stop.store(true, Relaxed);
    let outcomes = callers.join_all().await;
    until("all has ended", || {
        pods.iter().all(|pod| pod.under_way() == 0)
    })
    .await;
    let mut seen = BTreeMap::<String, usize>::new();
    for (head, _) in pods.iter().flat_map(Pod::requests) {
        *seen.entry(head.uri.path().to_owned()).or_default() += 1;
    }
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    let (mut answered, mut failed) = (0, 0);
    for outcomes in outcomes {
        answered += outcomes.answered.len();
        failed += outcomes.failed.len();
        for path in outcomes.answered {
            assert!(seen.contains_key(&path), "{path} was answered");
        }
        for (path, error) in outcomes.failed {
            // There is always another pod for what was not seen. But a server that closes while more is
            // on its way to it breaks the connection, and then its goodbye is not read.
            assert!(!error.is_unsent(), "{path}: {error}");
        }
    }
    println!("{answered} answered, {failed} perhaps seen");
    assert!(
        answered > GOODBYES && failed < GOODBYES / 50,
        "{failed} of {answered}"
    );
    assert_eq!(pending(&client), 0);
}
