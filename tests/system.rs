//! The operating system's resolver as a source.

use std::time::Duration;

use headless_lb::{Balancer, Resolve, ResolveErrorKind, System};

#[tokio::test]
async fn a_name_of_the_hosts_file_becomes_endpoints() {
    let balancer = Balancer::builder(System::new("localhost", 8080)).spawn();
    balancer
        .resolved()
        .await
        .expect("localhost is in /etc/hosts");
    let set = balancer.endpoints();
    assert!(
        set.iter()
            .all(|endpoint| endpoint.addr().ip().is_loopback() && endpoint.addr().port() == 8080)
    );
    assert_eq!(balancer.status().service(), "localhost");
}

#[tokio::test]
async fn an_unknown_name_is_a_failure_that_says_so_and_never_an_empty_answer() {
    // RFC 6761: no server answers for `invalid.`
    let system = System::new("nowhere.invalid", 80);
    let error = tokio::time::timeout(Duration::from_secs(20), system.resolve()).await;
    let error = error
        .expect("within its deadline")
        .expect_err("no such name");
    assert!(!error.is_empty());
    assert!(matches!(
        error.kind(),
        ResolveErrorKind::Other | ResolveErrorKind::Timeout
    ));
    assert!(error.to_string().contains("nowhere.invalid"), "{error}");
}
