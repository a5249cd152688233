//! A pod: says who it is or what it received, is slow, or echoes.
#![expect(
    clippy::disallowed_methods,
    reason = "an upgraded connection outlives its request"
)]

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode},
    response::Response,
};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{io, time::sleep};

use super::proxy::{DEADLINE, upgrade_to};

pub(crate) fn pod(name: &'static str) -> Router {
    Router::new().fallback(answer).with_state(name)
}

async fn answer(
    State(name): State<&'static str>,
    request: Request,
) -> Result<Response, (StatusCode, String)> {
    let text = match request.uri().path() {
        "/echo" => return Ok(echo(request)),
        "/headers" => {
            let header = |name| match request.headers().get(name).map(HeaderValue::to_str) {
                Some(Ok(value)) => format!("{name} {value}"),
                _ => format!("{name} none"),
            };
            format!("{}, {}", header("x-secret"), header("x-forwarded-for"))
        }
        "/orders" => {
            let body = request.into_body().collect().await;
            let body = body.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
            format!("{} bytes", body.to_bytes().len())
        }
        "/slow" => {
            sleep(2 * DEADLINE).await;
            name.to_owned()
        }
        _ => name.to_owned(),
    };
    Ok(Response::new(Body::from(text)))
}

/// As WebSocket begins: the connection is no HTTP any more, and says what it hears.
fn echo(mut request: Request) -> Response {
    let stream = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = stream.await {
            let (mut hears, mut says) = io::split(TokioIo::new(stream));
            // A client that goes away has heard enough.
            let _ = io::copy(&mut hears, &mut says).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    upgrade_to(response.headers_mut(), HeaderValue::from_static("echo"));
    response
}
