//! All processes agree, whatever each draws at random for itself.

use std::{env, net::IpAddr, process::Command};

use headless_lb::subset::{ClientId, Matching, Quota, nearest};

use super::balance::ips;

/// Set for the second process.
const ROLE: &str = "HEADLESS_LB_SUBSET_SECOND";

#[test]
fn a_second_process_chooses_the_same() {
    let chosen = format!("chosen {}", chosen());
    if env::var_os(ROLE).is_some() {
        println!("\n{chosen}");
        return;
    }
    let second = Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "processes::a_second_process_chooses_the_same",
            "--nocapture",
        ])
        .env(ROLE, "")
        .output()
        .unwrap();
    let second = String::from_utf8(second.stdout).unwrap();
    assert!(
        second.lines().any(|line| line == chosen),
        "{chosen}\n{second}"
    );
}

/// The order of one client, and the pods of another among its peers. Both are pinned, as computed by another
/// program from the formula: other versions are other processes too.
fn chosen() -> String {
    let last = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => ip.octets()[3],
        IpAddr::V6(ip) => ip.octets()[15],
    };
    let alone = nearest(ClientId::from("checkout-7"), ips(2, 40), 8);
    let alone: Vec<u8> = alone.into_iter().map(last).collect();
    let matching = Matching::new(ips(1, 30), ips(2, 40), Quota::of(30, 40, Some(8)));
    let mut among: Vec<u8> = matching.pods_of(ips(1, 30)[5]).map(last).collect();
    among.sort_unstable();
    assert_eq!(alone, [2, 34, 13, 15, 31, 24, 38, 18]);
    assert_eq!(among, [0, 18, 21, 22, 24, 25, 27, 28]);
    format!("{alone:?} {among:?}")
}
