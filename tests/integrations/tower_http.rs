//! tower-http's layers around the balanced HTTP client: the request's body is wrapped on its way in,
//! the response's on its way out.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, StatusCode,
    body::Bytes,
    header::{CONTENT_LENGTH, HeaderName, HeaderValue},
};
use tokio::time::timeout;
use tower::{ServiceBuilder, ServiceExt};
use tower_http::{
    limit::RequestBodyLimitLayer,
    set_header::SetRequestHeaderLayer,
    timeout::{ResponseBodyTimeoutLayer, TimeoutLayer},
    trace::TraceLayer,
};

use super::{PATIENCE, over, pending, pods, shares};

fn request(path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::post(format!("http://web.default{path}"))
        .header(CONTENT_LENGTH, body.len())
        .body(Full::from(body))
        .expect("a valid request")
}

#[tokio::test]
async fn a_stack_of_layers_composes_and_each_does_its_work() {
    let pods = pods(3).await;
    let balancer = over(&pods).spawn_http();
    let tenant = HeaderName::from_static("x-tenant");
    let client = ServiceBuilder::new()
        .layer(TraceLayer::new_for_http())
        .layer(SetRequestHeaderLayer::overriding(
            tenant,
            HeaderValue::from_static("blue"),
        ))
        .layer(ResponseBodyTimeoutLayer::new(PATIENCE))
        .layer(RequestBodyLimitLayer::new(8))
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            PATIENCE,
        ))
        .service(balancer.clone());
    for _ in 0..6 {
        let response = client
            .clone()
            .oneshot(request("/", "order"))
            .await
            .expect("an answer");
        assert_eq!(response.status(), StatusCode::OK);
        let body = response.into_body().collect().await;
        assert!(!body.expect("a whole body").to_bytes().is_empty());
    }
    assert_eq!(shares(&pods), [2, 2, 2]);
    assert_eq!(pending(&balancer), 0);
    for seen in pods.iter().flat_map(|pod| pod.requests()) {
        assert!(seen.contains("\r\nx-tenant: blue\r\n"), "{seen}");
        assert!(seen.ends_with("\r\n\r\norder"), "{seen}");
    }
    let response = client
        .oneshot(request("/", "an order too large"))
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(shares(&pods), [2, 2, 2], "no pod was asked");
}

#[tokio::test]
async fn a_timeout_answers_in_the_pods_place_and_ends_the_request() {
    let pods = pods(1).await;
    let balancer = over(&pods).spawn_http();
    let client = ServiceBuilder::new()
        .layer(TimeoutLayer::with_status_code(
            StatusCode::GATEWAY_TIMEOUT,
            Duration::from_millis(10),
        ))
        .service(balancer.clone());
    let response = client
        .oneshot(request("/slow", ""))
        .await
        .expect("an answer");
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(shares(&pods), [1]);
    assert_eq!(pending(&balancer), 0);
    let body = response.into_body().collect().await;
    let body = body.expect("a body that is empty");
    assert_eq!(body.trailers(), None::<&HeaderMap>);
    assert!(body.to_bytes().is_empty());
}

#[tokio::test]
async fn a_body_that_stops_is_given_up_and_no_longer_in_flight() {
    let pods = pods(1).await;
    let balancer = over(&pods).spawn_http();
    let client = ServiceBuilder::new()
        .layer(ResponseBodyTimeoutLayer::new(Duration::from_millis(20)))
        .service(balancer.clone());
    let response = client
        .oneshot(request("/endless", ""))
        .await
        .expect("a head");
    assert_eq!(pending(&balancer), 1);
    let collected = timeout(PATIENCE, response.into_body().collect()).await;
    collected
        .expect("an end in time")
        .expect_err("no end but that of the patience");
    assert_eq!(pending(&balancer), 0);
}
