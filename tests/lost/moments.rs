//! A body, and a connection that ends at every moment of its way: received once, or the caller is told.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use headless_lb::{Balancer, Fixed, Http, RoundRobin};
use hyper::body::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{net::TcpSocket, task::JoinSet, time::sleep};

use super::{
    Client, Outcome, client_in_order, get,
    pod::{Conduct, How, Moment, Pod},
    read, send, streamed,
    support::seed,
};

/// What the pods know of one request, and what its caller was told.
#[derive(Debug, Default)]
struct Fate {
    whole: usize,
    part: usize,
    is_spoilt: bool,
}

impl Fate {
    /// What pods received whose path began like this.
    fn of(pods: &[&Pod], id: &str, body: &[u8]) -> Self {
        let mut fate = Self::default();
        let received = pods.iter().flat_map(|pod| pod.received());
        for one in received.filter(|one| one.id == id) {
            match &one.body {
                Some(received) => {
                    fate.whole += 1;
                    fate.is_spoilt |= received != body;
                }
                None => fate.part += 1,
            }
        }
        fate
    }

    /// Of a request that must not be repeated.
    fn check(&self, outcome: &Outcome, case: &str) {
        assert!(!self.is_spoilt, "{case}: another body arrived");
        let times = self.whole + self.part;
        match outcome {
            Ok(_) => assert!(
                self.whole == 1 && self.part == 0,
                "{case}: answered, and received {self:?}"
            ),
            Err(error) if error.is_unsent() => {
                assert!(times == 0, "{case}: {error}, and received {self:?}");
            }
            Err(error) => assert!(times <= 1, "{case}: {error}, and received {self:?}"),
        }
    }
}

/// The same for the same number, and hardly ever for another.
fn body(number: usize, length: usize) -> Bytes {
    let words = (number as u64..).map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let bytes = words.flat_map(u64::to_be_bytes).take(length);
    bytes.collect()
}

/// Little enough to be kept, where that is allowed.
const LENGTH: usize = 60_000;

fn moments() -> impl Iterator<Item = Moment> {
    let bytes = [0, 1, 2, 20, 60].map(Moment::Byte);
    let bodies = [0, 1, 1_000, LENGTH / 2, LENGTH - 1].map(Moment::Body);
    let answers = [0, 1, 17, 38, 39, 45].map(Moment::Answer);
    [&bytes[..], &bodies, &[Moment::Whole], &answers]
        .concat()
        .into_iter()
}

/// Each moment once with a close and once with a reset, the body with its length told and in chunks.
async fn at_each_moment(
    ip: u8,
    before: Option<Conduct>,
    mut check: impl AsyncFnMut(&Client, &[Pod; 2], Moment, bool, String),
) {
    for moment in moments() {
        for (how, says_length) in [
            (How::Close, true),
            (How::Reset, false),
            (How::Close, false),
            (How::Reset, true),
        ] {
            let script = before.into_iter().chain([Conduct::Ends(moment, how)]);
            let pods = [
                Pod::scripted([127, 0, 2, ip], script).await,
                Pod::good([127, 0, 2, ip + 1]).await,
            ];
            let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
            if before.is_some() {
                assert_eq!(get(&client, "before").await, pods[0].addr());
            }
            let case = format!("{moment:?} {how:?}, length {says_length}");
            check(&client, &pods, moment, says_length, case).await;
        }
    }
}

/// What is owed to a POST whose pod breaks off at this moment.
async fn check_post(
    client: &Client,
    pods: &[Pod; 2],
    moment: Moment,
    says_length: bool,
    case: String,
) {
    let sent = body(1, LENGTH);
    let post = streamed("POST", "order", sent.clone(), 8_000, says_length);
    let outcome = send(client, post).await;
    let fate = Fate::of(&[&pods[0], &pods[1]], "order", &sent);
    fate.check(&outcome, &case);
    let may_have_been_seen = !matches!(moment, Moment::Byte(0));
    match outcome {
        Ok(response) => {
            let answer = read(response).await;
            if may_have_been_seen {
                assert!(
                    matches!(moment, Moment::Answer(39..)) && answer.is_err(),
                    "{case}: {answer:?}"
                );
            }
        }
        Err(error) => {
            assert!(!matches!(moment, Moment::Answer(39..)), "{case}: {error}");
            // And if it was not seen, a good pod was there.
            assert!(!error.is_unsent(), "{case}: {error}");
        }
    }
}

#[tokio::test]
async fn a_post_whose_new_connection_ends_anywhere_arrives_once_or_fails_with_the_truth() {
    at_each_moment(1, None, check_post).await;
}

#[tokio::test]
async fn a_post_whose_kept_connection_ends_anywhere_arrives_once_or_fails_with_the_truth() {
    at_each_moment(3, Some(Conduct::Answers), check_post).await;
}

#[tokio::test]
async fn a_post_after_a_kept_connection_has_closed_arrives_once() {
    for how in [How::Close, How::Reset] {
        let script = [Conduct::Answers, Conduct::Ends(Moment::Byte(0), how)];
        let pods = [
            Pod::scripted([127, 0, 2, 5], script).await,
            Pod::good([127, 0, 2, 6]).await,
        ];
        let client = client_in_order(pods.iter().map(Pod::addr), Http::new());
        get(&client, "before").await;
        // The close has arrived here.
        sleep(Duration::from_millis(20)).await;
        let sent = body(2, LENGTH);
        let outcome = send(&client, streamed("POST", "order", sent.clone(), 999, false)).await;
        assert!(outcome.is_ok(), "{how:?}: {outcome:?}");
        Fate::of(&[&pods[0], &pods[1]], "order", &sent).check(&outcome, "closed before");
    }
}

#[tokio::test]
async fn a_get_is_answered_wherever_its_connection_ends_before_the_answer() {
    at_each_moment(7, None, async |client, pods, moment, _, case| {
        let outcome = send(client, super::request("GET", "item", "")).await;
        let response = outcome.unwrap_or_else(|error| panic!("{case}: {error}"));
        let answer = read(response).await;
        match moment {
            // Its head was there: the rest cannot come from another pod.
            Moment::Answer(39..) => assert!(answer.is_err(), "{case}"),
            // The same pod may be well, and have closed an idle connection.
            Moment::Byte(0) => assert!(answer.is_ok(), "{case}"),
            _ => assert_eq!(answer.expect("a whole body"), pods[1].addr(), "{case}"),
        }
        assert!(pods[1].requests() <= 1, "{case}");
    })
    .await;
}

/// An address that refuses, as long as the socket is held.
fn refusing(ip: [u8; 4]) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind(SocketAddr::from((ip, 0)))
        .expect("a loopback port");
    let addr = socket.local_addr().expect("a bound socket");
    (socket, addr)
}

fn any_conduct(rng: &mut SmallRng) -> Conduct {
    let how = if rng.random() { How::Close } else { How::Reset };
    let moment = match rng.random_range(0..16) {
        0 => Moment::Byte(0),
        1 => Moment::Byte(rng.random_range(1..150)),
        2 => Moment::Body(0),
        3 => Moment::Body(rng.random_range(0..2_000)),
        4 => Moment::Body(rng.random_range(0..1_000_000)),
        5 => Moment::Whole,
        6 => Moment::Answer(rng.random_range(0..50)),
        7 => return Conduct::AnswersAfter(Duration::from_millis(rng.random_range(0..60))),
        _ => return Conduct::Answers,
    };
    Conduct::Ends(moment, how)
}

const POSTS: usize = 240;
const AT_ONCE: usize = 24;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_among_pods_that_break_off_anywhere_arrive_once_or_fail_with_the_truth() {
    let seed = seed();
    let mut pods = Vec::new();
    for ip in 9..=11 {
        let mut rng = SmallRng::seed_from_u64(seed ^ u64::from(ip));
        let is_good = ip == 11;
        let conduct = move || match is_good {
            true => Conduct::Answers,
            false => any_conduct(&mut rng),
        };
        pods.push(Pod::start([127, 0, 2, ip], conduct).await);
    }
    let (_held, nobody) = refusing([127, 0, 2, 12]);
    let addresses = pods.iter().map(Pod::addr).chain([nobody]);
    let client: Client = Balancer::builder(Fixed::new(addresses))
        .policy(RoundRobin::new())
        .spawn_http();
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut posts = JoinSet::new();
    let mut outcomes = BTreeMap::new();
    for number in 0..POSTS {
        if posts.len() == AT_ONCE {
            let (number, outcome): (usize, Outcome) =
                posts.join_next().await.expect("a post").expect("no panic");
            outcomes.insert(number, outcome);
        }
        let length = match rng.random_range(0..4) {
            0 => 0,
            1 => rng.random_range(0..1_000),
            2 => rng.random_range(0..70_000),
            _ => rng.random_range(0..1_000_000),
        };
        let (piece, says_length) = (rng.random_range(500..70_000), rng.random());
        let client = client.clone();
        posts.spawn(async move {
            let sent = body(number, length);
            let post = streamed(
                "POST",
                &format!("{number}-{length}"),
                sent,
                piece,
                says_length,
            );
            let mut outcome = send(&client, post).await;
            if let Ok(response) = &mut outcome {
                // Perhaps it breaks off; the connection is not for others before.
                let _ = read(std::mem::take(response)).await;
            }
            (number, outcome)
        });
    }
    while let Some(done) = posts.join_next().await {
        let (number, outcome) = done.expect("no panic");
        outcomes.insert(number, outcome);
    }
    let received: Vec<_> = pods.iter().flat_map(Pod::received).collect();
    let (mut ok, mut unsent) = (0, 0);
    for (number, outcome) in &outcomes {
        let mut fate = Fate::default();
        let prefix = format!("{number}-");
        for one in received.iter().filter(|one| one.id.starts_with(&prefix)) {
            let length = one.id[prefix.len()..].parse().expect("a length");
            match &one.body {
                Some(whole) => {
                    fate.whole += 1;
                    fate.is_spoilt |= whole != &body(*number, length);
                }
                None => fate.part += 1,
            }
        }
        fate.check(outcome, &format!("post {number}"));
        ok += usize::from(outcome.is_ok());
        unsent += usize::from(outcome.as_ref().is_err_and(|error| error.is_unsent()));
    }
    println!("{ok} of {POSTS} answered, {unsent} unsent");
    assert_eq!(outcomes.len(), POSTS);
    assert!(ok > POSTS / 2, "{ok} of {POSTS} answered");
    assert_eq!(unsent, 0, "a good pod was there all the time");
    super::until("nothing is in flight", || super::pending(&client) == 0).await;
}
