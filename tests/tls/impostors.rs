//! Pods that are not who they should be.

use headless_lb::rustls::ServerConfig;

use super::*;

/// Each with what the error says of it.
fn impostors(authority: &Authority) -> [(ServerConfig, &'static str); 3] {
    [
        (
            authority.certify("mail.default.svc").server(),
            "not valid for name",
        ),
        (authority.certify_expired(SERVICE).server(), "expired"),
        (Authority::new().certify(SERVICE).server(), "UnknownIssuer"),
    ]
}

#[tokio::test]
async fn a_pod_that_cannot_prove_to_be_the_service_gets_no_request_and_the_error_names_both() {
    let authority = Authority::new();
    for (server, cause) in impostors(&authority) {
        let pod = TlsPod::start([127, 0, 4, 1], server).await;
        let settings = as_service(authority.client());
        let client = over([pod.addr()]).spawn_http_with(settings);
        for method in ["POST", "GET"] {
            let (error, text) = refusal(&client, method).await;
            assert!(matches!(error, HttpError::Tls(_)), "{text}");
            has(&text, &[&SERVICE, &pod.addr(), &cause]);
        }
        until_ejected(&client, pod.addr()).await;
        assert!(pod.requests().is_empty());
    }
}

#[tokio::test]
async fn beside_a_good_pod_an_impostor_costs_no_request() {
    let authority = Authority::new();
    let good = TlsPod::start([127, 0, 4, 1], authority.certify(SERVICE).server()).await;
    for (server, _) in impostors(&authority) {
        let bad = TlsPod::start([127, 0, 4, 2], server).await;
        let settings = as_service(authority.client());
        let client = over([good.addr(), bad.addr()]).spawn_http_with(settings);
        for _ in 0..30 {
            assert_eq!(answer(&client, "POST").await.0, good.addr());
        }
        assert!(bad.requests().is_empty());
        let tried = bad.connections();
        assert!((1..=6).contains(&tried), "it is set aside: {tried}");
    }
}

#[tokio::test]
async fn a_certificate_for_the_address_alone_does_not_make_a_pod_the_service() {
    let authority = Authority::new();
    let server = authority.certify("127.0.4.1").server();
    let pod = TlsPod::start([127, 0, 4, 1], server).await;
    let client = over([pod.addr()]).spawn_http_with(as_service(authority.client()));
    let (_, text) = refusal(&client, "GET").await;
    has(&text, &[&"not valid for name"]);
}

/// The pods' own names below the service's.
fn as_pods(authority: &Authority) -> Http {
    Http::new().tls(Tls::pod(authority.client(), SERVICE).expect("a domain"))
}

async fn named(authority: &Authority, host: u8) -> (String, TlsPod) {
    let name = format!("web-{host}");
    let server = authority.certify(&format!("{name}.{SERVICE}")).server();
    (name, TlsPod::start([127, 0, 4, host], server).await)
}

#[tokio::test]
async fn each_pod_proves_its_own_name_and_hears_it() {
    let authority = Authority::new();
    let pods = [named(&authority, 1).await, named(&authority, 2).await];
    let listed = pods
        .iter()
        .map(|(name, pod)| Address::from(pod.addr()).named(name.as_str()));
    let client = over(listed).spawn_http_with(as_pods(&authority));
    for _ in 0..10 {
        answer(&client, "GET").await;
    }
    for (name, pod) in &pods {
        assert_eq!(pod.requests().len(), 5);
        assert_eq!(pod.names(), [Some(format!("{name}.{SERVICE}"))]);
        // The request is the caller's, and for the service.
        assert!(pod.requests().iter().all(|seen| seen.host == SERVICE));
    }
}

#[tokio::test]
async fn pods_that_swapped_their_addresses_are_refused_by_name() {
    let authority = Authority::new();
    let [one, two, three] = [
        named(&authority, 1).await,
        named(&authority, 2).await,
        named(&authority, 3).await,
    ];
    let swapped = [
        Address::from(two.1.addr()).named(one.0.as_str()),
        Address::from(one.1.addr()).named(two.0.as_str()),
    ];
    let client = over(swapped.clone()).spawn_http_with(as_pods(&authority));
    let (error, text) = refusal(&client, "POST").await;
    assert!(matches!(error, HttpError::Tls(_)), "{text}");
    has(
        &text,
        &[&SERVICE, &swapped[0], &swapped[1], &"not valid for name"],
    );

    let right = Address::from(three.1.addr()).named(three.0.as_str());
    let client = over(swapped.into_iter().chain([right])).spawn_http_with(as_pods(&authority));
    for _ in 0..20 {
        assert_eq!(answer(&client, "POST").await.0, three.1.addr());
    }
    assert!(one.1.requests().is_empty() && two.1.requests().is_empty());
}

#[tokio::test]
async fn a_pod_whose_name_is_not_known_cannot_prove_it() {
    let authority = Authority::new();
    let (_, pod) = named(&authority, 1).await;
    let client = over([pod.addr()]).spawn_http_with(as_pods(&authority));
    let (error, text) = refusal(&client, "GET").await;
    assert!(matches!(error, HttpError::Tls(_)), "{text}");
    has(&text, &[&SERVICE, &pod.addr(), &"discovery told none"]);
    until_ejected(&client, pod.addr()).await;
    assert_eq!(pod.names(), [], "there is nothing to ask it");
}

#[tokio::test]
async fn an_address_that_another_service_took_over_receives_nothing() {
    let authority = Authority::new();
    for offer in [&["h2"][..], &["http/1.1"]] {
        let certified = |name| authority.certify(name).server();
        let (ours, theirs) = (certified(SERVICE), certified("mail.default.svc"));
        let good = TlsPod::offering(offer, [127, 0, 4, 1], ours.clone()).await;
        let gone = TlsPod::offering(offer, [127, 0, 4, 2], ours).await;
        let moved = gone.addr();
        let settings = as_service(authority.client());
        let both = over([good.addr(), moved]).spawn_http_with(settings.clone());
        let alone = over([moved]).spawn_http_with(settings);
        for _ in 0..10 {
            answer(&both, "POST").await;
            answer(&alone, "POST").await;
        }
        assert_eq!(gone.requests().len(), 15, "it was the right one");

        drop(gone);
        let impostor = TlsPod::bind(offer, moved, theirs).await;
        // That the old pod is gone arrives here as well; what is written before is not the question.
        sleep(Duration::from_millis(50)).await;
        for _ in 0..30 {
            assert_eq!(answer(&both, "POST").await.0, good.addr());
        }
        let (error, text) = refusal(&alone, "POST").await;
        assert!(matches!(error, HttpError::Tls(_)), "{text}");
        has(&text, &[&SERVICE, &moved, &"not valid for name"]);
        until_ejected(&alone, moved).await;
        assert!(impostor.connections() > 0, "it was asked who it is");
        assert!(impostor.requests().is_empty());

        // And back: whoever proves to be the service is one of its pods again.
        drop(impostor);
        let back = TlsPod::bind(offer, moved, authority.certify(SERVICE).server()).await;
        until_answered_by(&both, moved).await;
        drop(back);
    }
}

pub(super) async fn until_answered_by(client: &Client, pod: SocketAddr) {
    for _ in 0..500 {
        if answer(client, "GET").await.0 == pod {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never answered by {pod}:\n{client}");
}
