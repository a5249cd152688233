//! A key stays at one pod, goes to the next best while that one refuses, and comes back.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use headless_lb::{Maglev, Policy, Rendezvous};

use tokio::time::sleep;

use super::{Client, Pod, answer, over, pods};
use crate::support::pod::Manner;

async fn homes(client: &Client) -> BTreeMap<u64, SocketAddr> {
    let mut homes = BTreeMap::new();
    for key in 0..40_u64 {
        let home = answer(&client.for_key(key)).await;
        homes.insert(key, home);
    }
    homes
}

async fn assert_keys_have_homes(policy: impl Policy) {
    let mut pods = pods(4).await;
    let client: Client = over(&pods).policy(policy).spawn_http();
    let before = homes(&client).await;
    assert_eq!(homes(&client).await, before);
    for pod in &pods {
        let keys = before.values().filter(|&&home| home == pod.addr());
        assert!((1..30).contains(&keys.count()), "{before:?}");
    }

    // The pod of key 0 dies, and everything that others have stays with them.
    let place = pods.iter().position(|pod| pod.addr() == before[&0]);
    let gone = pods.remove(place.expect("one of these"));
    let addr = gone.addr();
    drop(gone);
    let away = homes(&client).await;
    assert!(away.values().all(|&home| home != addr));
    let others = |homes: &BTreeMap<u64, SocketAddr>| -> Vec<_> {
        let stayed = |key: &u64| before[key] != addr;
        homes
            .iter()
            .map(|(key, home)| (*key, *home))
            .filter(|(key, _)| stayed(key))
            .collect()
    };
    assert_eq!(others(&away), others(&before));
    assert_eq!(
        homes(&client).await,
        away,
        "each to its next best, and there it stays"
    );

    pods.push(Pod::start_at(addr, Manner::KeepsAlive).await);
    let first = client.for_key(0_u64);
    let mut looks = 0;
    while answer(&first).await != addr {
        looks += 1;
        assert!(looks < 1000, "the pod never has its keys again");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(homes(&client).await, before);
}

#[tokio::test]
async fn by_rendezvous_a_key_stays_at_one_pod_and_moves_to_its_next_while_that_refuses() {
    assert_keys_have_homes(Rendezvous::new()).await;
}

#[tokio::test]
async fn by_maglev_a_key_stays_at_one_pod_and_moves_to_its_next_while_that_refuses() {
    assert_keys_have_homes(Maglev::new()).await;
}
