//! What becomes of a request on its way to a pod: whom it names, where it goes, and what is left of it
//! to send again.

use http::{HeaderValue, Method, Request, Uri, header::HOST, uri::Authority, uri::Scheme};
use http_body::Body;

use super::ClientError;

/// Checks what is the same for every pod, and takes the authority of the URI into the `Host` header,
/// unless there is one: the URI's is about to change.
pub(super) fn prepare<B>(request: &mut Request<B>) -> Result<(), ClientError> {
    let uri = request.uri();
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP) {
        return Err(ClientError::UnsupportedScheme);
    }
    if request.method() == Method::CONNECT {
        return Err(ClientError::UnsupportedMethod);
    }
    if !request.headers().contains_key(HOST) {
        let host = host_header(uri).ok_or(ClientError::MissingHost)?;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// The authority as written, without user information (RFC 9110, 7.2).
fn host_header(uri: &Uri) -> Option<HeaderValue> {
    let authority = uri.authority()?.as_str();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

/// Path and query stay, and the authority becomes the pod's address: what the client dials, and the key
/// of its pool.
pub(super) fn aim<B>(request: &mut Request<B>, pod: &Authority) {
    let path = request.uri().path_and_query().cloned();
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(pod.clone());
    parts.path_and_query = path.or_else(|| Some(http::uri::PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).expect("scheme, authority and path are there");
}

/// The request once more, if nothing is lost by that: a client that fails keeps the body, so only one
/// that is at its end before it begins can be made anew.
pub(super) fn once_more<B: Body + Default>(request: &Request<B>) -> Option<Request<B>> {
    if !request.body().is_end_stream() {
        return None;
    }
    let body = B::default();
    if !body.is_end_stream() {
        return None;
    }
    let mut again = Request::new(body);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.version_mut() = request.version();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    Some(again)
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::body::Bytes;

    use super::*;

    fn prepared(request: http::request::Builder) -> Result<(String, String), ClientError> {
        let mut request = request.body(()).unwrap();
        prepare(&mut request)?;
        aim(&mut request, &Authority::from_static("[fd00::7]:8080"));
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        Ok((request.uri().to_string(), host))
    }

    #[test]
    fn the_uri_names_the_pod_and_the_host_header_what_the_caller_wrote() {
        let pair = |uri: &str, host: &str| (uri.to_owned(), host.to_owned());
        for (uri, path, host) in [
            (
                "http://catalog.shop/items/1?x=y",
                "/items/1?x=y",
                "catalog.shop",
            ),
            ("http://catalog.shop:80", "/", "catalog.shop:80"),
            ("http://user:secret@catalog.shop/", "/", "catalog.shop"),
            ("http://[fd00::1]:9/", "/", "[fd00::1]:9"),
            ("catalog.shop:9", "/", "catalog.shop:9"),
        ] {
            let expected = pair(&format!("http://[fd00::7]:8080{path}"), host);
            assert_eq!(prepared(Request::get(uri)).unwrap(), expected, "{uri}");
        }
    }

    #[test]
    fn a_host_header_of_the_caller_stays() {
        for uri in ["http://pod/items", "/items"] {
            let (uri, host) = prepared(Request::get(uri).header(HOST, "shop.example")).unwrap();
            assert_eq!(
                (&*uri, &*host),
                ("http://[fd00::7]:8080/items", "shop.example")
            );
        }
    }

    #[test]
    fn a_request_that_cannot_be_sent_says_why() {
        assert!(matches!(
            prepared(Request::get("/items")),
            Err(ClientError::MissingHost)
        ));
        assert!(matches!(
            prepared(Request::get("https://shop/")),
            Err(ClientError::UnsupportedScheme)
        ));
        assert!(matches!(
            prepared(Request::connect("shop:443")),
            Err(ClientError::UnsupportedMethod)
        ));
    }

    #[test]
    fn only_a_request_without_a_body_can_be_made_anew() {
        let with = |body: &'static str| {
            let body = Full::new(Bytes::from_static(body.as_bytes()));
            Request::put("http://shop/1")
                .header("x", "y")
                .extension(7_u8)
                .body(body)
                .unwrap()
        };
        assert!(once_more(&with("body")).is_none());
        let again = once_more(&with("")).unwrap();
        assert_eq!((again.method(), again.uri().path()), (&Method::PUT, "/1"));
        assert_eq!(again.headers()["x"], "y");
        assert_eq!(again.extensions().get(), Some(&7_u8));
    }
}
