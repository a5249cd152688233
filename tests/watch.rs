//! The example `watch` as people run it, against a name server that changes its mind.

mod support;

use std::{process::Stdio, time::Duration};

use support::dns_server::{A, AAAA, DnsServer, Rcode, Reply};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const NAME: &str = "web.shop.svc.cluster.local.";

/// A running `watch`; ended when it is dropped.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(args: &[&str]) -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["run", "--quiet", "--example", "watch", "--"])
            .args(args);
        cargo
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = cargo.spawn().expect("cargo runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The next line that contains all of these.
    async fn line_with(&mut self, parts: &[&str]) -> String {
        let mut seen = Vec::new();
        let search = async {
            while let Some(line) = self.lines.next_line().await.expect("readable output") {
                if parts.iter().all(|part| line.contains(part)) {
                    return Some(line);
                }
                seen.push(line);
            }
            None
        };
        // The first run may have to build the example.
        let found = timeout(Duration::from_secs(300), search)
            .await
            .ok()
            .flatten();
        found.unwrap_or_else(|| panic!("no line with {parts:?} in {seen:#?}"))
    }
}

#[tokio::test]
async fn it_prints_each_change_with_record_ttl_and_outcome_and_keeps_the_set_through_failures() {
    let server = DnsServer::start().await;
    server.answer(NAME, AAAA, Reply::nodata());
    server.answer(NAME, A, Reply::addresses(["10.0.0.1", "10.0.0.2"]).ttl(2));
    let addr = server.addr().to_string();
    let mut watch = Watch::start(&[
        "web.shop.svc.cluster.local:8080",
        "--server",
        &addr,
        "--for",
        "240",
    ]);
    watch
        .line_with(&["+ 10.0.0.", ":8080", "records A ttl 2 s", "2 endpoints"])
        .await;
    server.answer(
        NAME,
        A,
        Reply::addresses(["10.0.0.1", "10.0.0.2", "10.0.0.3"]).ttl(2),
    );
    watch.line_with(&["+ 10.0.0.3:8080", "3 endpoints"]).await;
    server.answer(NAME, A, Reply::rcode(Rcode::ServFail));
    watch
        .line_with(&["servfail", "SERVFAIL", "keeping 3 endpoints"])
        .await;
    server.answer(NAME, A, Reply::addresses(["10.0.0.1", "10.0.0.3"]).ttl(2));
    watch.line_with(&["- 10.0.0.2:8080", "2 endpoints"]).await;
    watch.child.kill().await.expect("a running child");
}

#[tokio::test]
async fn it_ends_with_a_summary_and_says_what_is_wrong_with_its_arguments() {
    let mut watch = Watch::start(&["localhost:80", "--for", "1"]);
    watch
        .line_with(&["watch: ok", "changes=1", "endpoints=1"])
        .await;
    assert!(watch.child.wait().await.expect("an exit status").success());
    for wrong in [
        &["web.shop"][..],
        &["web.shop:0"],
        &["http://web:80"],
        &["web:80", "--server", "nonsense"],
    ] {
        let mut watch = Watch::start(wrong);
        assert_eq!(
            watch.child.wait().await.expect("an exit status").code(),
            Some(2),
            "{wrong:?}"
        );
    }
}
