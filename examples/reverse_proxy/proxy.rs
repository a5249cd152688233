//! The proxy: whatever the path, a request goes to the pod that the policy picks. Bodies are streamed
//! both ways, and upgrades pass through.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use headless_lb::{Balancer, Builder, Error, HttpError, HttpPod};
use hyper::upgrade::{OnUpgrade, on};
use hyper_util::rt::TokioIo;
use tokio::{io::copy_bidirectional, time::timeout};
use tower::ServiceExt;

type Pods = Balancer<HttpPod>;

/// How long a pod may take to begin its answer. How long the answer may last is not limited.
pub(crate) const DEADLINE: Duration = Duration::from_millis(500);

/// What belongs to one connection and not to the message (RFC 9110, 7.6.1, and 11.7 for `proxy-*`: this
/// is the proxy). hyper frames the bodies anew.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A proxy over the pods that the builder finds.
pub(crate) fn proxy(builder: &Builder) -> Router {
    Router::new()
        .fallback(forward)
        .with_state(builder.spawn_http())
}

/// Passes a request on, and the answer back.
async fn forward(
    State(pods): State<Pods>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Result<Response, (StatusCode, String)> {
    let asked = request.headers().get(header::UPGRADE).cloned();
    let client_side = on(&mut request);
    strip_hop_by_hop(request.headers_mut());
    if let Some(protocol) = asked {
        upgrade_to(request.headers_mut(), protocol);
    }
    // Behind what is there: whom each proxy on the way heard the request from.
    let from = HeaderValue::try_from(client.ip().to_string()).expect("an address is plain text");
    request.headers_mut().append("x-forwarded-for", from);

    let mut response = match timeout(DEADLINE, pods.oneshot(request)).await {
        Ok(Ok(response)) => response.map(Body::new),
        Ok(Err(error)) => return Err((status(&error), error.to_string())),
        Err(_) => return Err((StatusCode::GATEWAY_TIMEOUT, "no answer in time".into())),
    };
    let agreed = response.headers().get(header::UPGRADE).cloned();
    strip_hop_by_hop(response.headers_mut());
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(protocol) = agreed else {
            return Err((StatusCode::BAD_GATEWAY, "an upgrade to nothing".into()));
        };
        upgrade_to(response.headers_mut(), protocol);
        tunnel(client_side, on(&mut response));
    }
    Ok(response)
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed = headers.get_all(header::CONNECTION).iter();
    let listed: Vec<HeaderName> = listed
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP_BY_HOP.iter().chain(&listed) {
        headers.remove(name);
    }
}

/// An upgrade is asked for, and agreed to, from hop to hop: the proxy says it again.
pub(crate) fn upgrade_to(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// The answer in a pod's place.
fn status(error: &Error<HttpError>) -> StatusCode {
    match error {
        Error::Pick(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Unsent { error, .. } | Error::Service { error, .. } => match error {
            HttpError::MissingHost => StatusCode::BAD_REQUEST,
            HttpError::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        },
        _ => StatusCode::BAD_GATEWAY,
    }
}

/// From here on it is no HTTP: bytes, both ways, until both sides have closed.
#[expect(
    clippy::disallowed_methods,
    reason = "an upgraded connection outlives its request"
)]
fn tunnel(client_side: OnUpgrade, pod_side: OnUpgrade) {
    tokio::spawn(async move {
        if let (Ok(client), Ok(pod)) = tokio::join!(client_side, pod_side) {
            // How it ends is the business of the two.
            let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(pod)).await;
        }
    });
}
