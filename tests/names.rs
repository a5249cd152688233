//! Names as people write them: every wrong one is a typed error that says what to write instead, and none is a panic.

use headless_lb::{Dns, NameError, NameErrorKind as Kind};

fn headless(name: &str) -> Result<Dns, NameError> {
    Dns::headless(name, 80)
}

#[test]
fn good_names_are_accepted_as_they_are() {
    let longest = [
        "a".repeat(63),
        "b".repeat(63),
        "c".repeat(63),
        "d".repeat(61),
    ]
    .join(".");
    assert_eq!(longest.len(), 253);
    let names = [
        "web",
        "web.shop",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
        "WEB.Shop.svc.Cluster.LOCAL",
        "db-0.db.prod.svc.cluster.local",
        "10-244-1-1.web.shop.svc.cluster.local",
        "my_host.example.com",
        "web.123",
        "1.2.3",
        "1.2.3.4.5",
        "xn--bcher-kva.example",
        "-odd-.example",
        "10.0.0.1",
        "10.0.0.1.",
        "::1",
        "[::1]",
        "::ffff:10.0.0.1",
        "localhost",
        "LOCALHOST.",
        "db.localhost",
        &longest,
        &format!("{longest}."),
    ];
    for name in names {
        assert!(headless(name).is_ok(), "{name:?}: {:?}", headless(name));
    }
    for name in [
        "_http._tcp.web",
        "_http._tcp.web.shop.svc.cluster.local.",
        "_grpc-web._udp.a.b",
    ] {
        assert!(Dns::srv(name).is_ok(), "{name:?}");
    }
}

#[test]
fn wrong_names_are_typed_errors() {
    let label = "x".repeat(64);
    let long = ["y"; 150].join(".");
    let cases = [
        ("", Kind::Empty),
        (".", Kind::Empty),
        ("..", Kind::EmptyLabel),
        (".web", Kind::EmptyLabel),
        ("web..shop", Kind::EmptyLabel),
        ("web.shop..", Kind::EmptyLabel),
        (" ", Kind::Character),
        (" web", Kind::Character),
        ("web\n", Kind::Character),
        ("we b", Kind::Character),
        ("web/path", Kind::Character),
        ("web?x", Kind::Character),
        ("user@web", Kind::Character),
        ("*.web", Kind::Character),
        ("we\0b", Kind::Character),
        ("\\046web", Kind::Character),
        ("a\u{200b}b", Kind::Character),
        ("🦀.example", Kind::Character),
        ("bücher.example", Kind::International),
        ("ｗｅｂ", Kind::International),
        ("例え.jp", Kind::International),
        ("web。shop", Kind::Character),
        ("web:80", Kind::Port),
        ("web:", Kind::Port),
        ("10.0.0.1:80", Kind::Port),
        ("[::1]:80", Kind::Port),
        ("localhost:5432", Kind::Port),
        ("http://web", Kind::Scheme),
        ("http://web:80/x", Kind::Scheme),
        ("dns:///web", Kind::Scheme),
        ("256.1.1.1", Kind::Address),
        ("1.2.3.999999999999", Kind::Address),
        ("[10.0.0.1]", Kind::Character),
        ("[::1", Kind::Character),
        ("fe80::1%eth0", Kind::Character),
        (":::", Kind::Character),
        (&label, Kind::LabelTooLong),
        (&long, Kind::TooLong),
    ];
    for (name, kind) in cases {
        let error = headless(name).expect_err(name);
        assert_eq!(error.kind(), kind, "{name:?}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error}");
        // The same rules hold for every name.
        assert!(Dns::srv(&format!("_http._tcp.{name}")).is_err(), "{name:?}");
        assert!(
            headless("web").unwrap().cluster_domain(name).is_err(),
            "{name:?}"
        );
    }
}

#[test]
fn srv_names_need_a_port_name_and_a_protocol() {
    for name in [
        "web",
        "web.shop.svc.cluster.local",
        "_http.web",
        "_http._tcp",
        "_http._tcp.",
        "http._tcp.web",
        "_._tcp.web",
        "_http.tcp.web",
    ] {
        assert_eq!(
            Dns::srv(name).unwrap_err().kind(),
            Kind::SrvPrefix,
            "{name}"
        );
    }
    for name in [
        "10.0.0.1",
        "::1",
        "[::1]",
        "_http._tcp.10.0.0.1",
        "_http._tcp.localhost",
        "_http._tcp.db.localhost.",
    ] {
        assert_eq!(Dns::srv(name).unwrap_err().kind(), Kind::Address, "{name}");
    }
}

#[test]
fn port_zero_is_no_port() {
    for name in ["web", "10.0.0.1", "localhost"] {
        assert_eq!(
            Dns::headless(name, 0).unwrap_err().kind(),
            Kind::PortMissing
        );
        assert_eq!(
            headless(name).unwrap().or_port(0).unwrap_err().kind(),
            Kind::PortMissing
        );
    }
}

#[test]
fn the_text_shows_the_name_shortened_and_what_to_write() {
    let text = headless(&"z".repeat(300)).unwrap_err().to_string();
    assert!(
        text.starts_with("\"zzz") && text.contains("...\" has"),
        "{text}"
    );
    assert!(text.len() < 200, "{text}");
    let text = headless("http://web").unwrap_err().to_string();
    assert!(text.contains("without a scheme"), "{text}");
    let text = Dns::srv("web.shop").unwrap_err().to_string();
    assert!(text.contains("_http._tcp."), "{text}");
    let text = headless("we\u{1b}[31mb").unwrap_err().to_string();
    assert!(
        text.contains(r"\u{1b}"),
        "no control character reaches a terminal: {text}"
    );
}

#[test]
fn no_string_whatever_makes_it_panic() {
    let seed = std::env::var("HEADLESS_LB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 =
        seed.unwrap_or_else(|| std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 1));
    println!("HEADLESS_LB_SEED={seed}");
    let mut state = seed;
    // SplitMix64.
    let mut draw = |n: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = state;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((x ^ (x >> 31)) % (n as u64)).unwrap()
    };
    const PIECES: [&str; 34] = [
        "a",
        "web",
        "_http",
        "_tcp",
        ".",
        ".",
        ".",
        "..",
        "svc",
        "cluster",
        "local",
        "localhost",
        "-",
        "_",
        "0",
        "1.2.3.4",
        "255",
        ":",
        "::",
        "[",
        "]",
        "%",
        "//",
        "://",
        "\0",
        " ",
        "\\",
        "é",
        "🦀",
        "\u{202e}",
        "xn--",
        "*",
        "@",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ];
    for _ in 0..50_000 {
        let mut name = String::new();
        for _ in 0..draw(12) {
            name.push_str(PIECES[draw(PIECES.len())]);
        }
        if draw(4) == 0 {
            name.extend(
                (0..draw(20)).filter_map(|_| char::from_u32(draw(0x11_0000).try_into().unwrap())),
            );
        }
        let port = u16::try_from(draw(3)).unwrap();
        for made in [
            Dns::headless(&name, port),
            Dns::srv(&name),
            Dns::srv(&format!("_a._tcp.{name}")),
        ] {
            match made {
                Ok(dns) => {
                    assert!(name.is_ascii() && name.len() <= 254, "{name:?}");
                    let _ = dns.cluster_domain(&name);
                }
                Err(error) => assert!(error.to_string().len() < 700, "{name:?}: {error}"),
            }
        }
    }
}
