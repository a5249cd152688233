//! What HTTP/1.1 wants of a request: its version, a path on the request line, a `Host` header.

use http::{HeaderValue, Method, Request, Uri, Version, header::HOST, uri::Scheme};

use super::HttpError;

/// Takes the authority of the URI into the `Host` header, unless there is one, and leaves path and
/// query (RFC 9112, 3.2.1). `CONNECT` keeps its authority. A request that came in by another version
/// goes out as HTTP/1.1, except HTTP/1.0, which promises less.
pub(super) fn to_origin_form<B>(request: &mut Request<B>) -> Result<(), HttpError> {
    let uri = request.uri();
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP) {
        return Err(HttpError::UnsupportedScheme);
    }
    if !request.headers().contains_key(HOST) {
        let host = host_header(uri).ok_or(HttpError::MissingHost)?;
        request.headers_mut().insert(HOST, host);
    }
    if request.version() != Version::HTTP_10 {
        *request.version_mut() = Version::HTTP_11;
    }
    if request.method() != Method::CONNECT {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

/// Host and port as written, without user information (RFC 9110, 7.2) and without the port 80 that
/// the scheme implies.
fn host_header(uri: &Uri) -> Option<HeaderValue> {
    let host = uri.host()?;
    match uri.port_u16().filter(|&port| port != 80) {
        None => HeaderValue::from_str(host).ok(),
        Some(port) => HeaderValue::try_from(format!("{host}:{port}")).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared(request: http::request::Builder) -> Result<(String, String), HttpError> {
        let mut request = request.body(()).unwrap();
        to_origin_form(&mut request)?;
        let host = request.headers()[HOST].to_str().unwrap().to_owned();
        Ok((request.uri().to_string(), host))
    }

    #[test]
    fn the_host_is_that_of_the_uri_and_the_path_is_kept() {
        let of = |uri: &str| prepared(Request::get(uri)).unwrap();
        let pair = |path: &str, host: &str| (path.to_owned(), host.to_owned());
        assert_eq!(
            of("http://catalog.shop/items/1?x=y"),
            pair("/items/1?x=y", "catalog.shop")
        );
        assert_eq!(
            of("http://catalog.shop:8080"),
            pair("/", "catalog.shop:8080")
        );
        assert_eq!(
            of("http://user:secret@catalog.shop:80/"),
            pair("/", "catalog.shop")
        );
        assert_eq!(of("http://[fd00::1]:8080/"), pair("/", "[fd00::1]:8080"));
    }

    #[test]
    fn a_host_header_of_the_caller_stays() {
        let (_, host) = prepared(Request::get("http://pod/").header(HOST, "shop.example")).unwrap();
        assert_eq!(host, "shop.example");
        let (path, _) = prepared(Request::get("/items").header(HOST, "shop.example")).unwrap();
        assert_eq!(path, "/items");
    }

    #[test]
    fn versions_that_the_connection_does_not_speak_become_1_1() {
        let sent_as = |version| {
            let request = Request::get("http://pod/").version(version);
            let mut request = request.body(()).unwrap();
            to_origin_form(&mut request).unwrap();
            request.version()
        };
        assert_eq!(sent_as(Version::HTTP_10), Version::HTTP_10);
        for version in [
            Version::HTTP_09,
            Version::HTTP_11,
            Version::HTTP_2,
            Version::HTTP_3,
        ] {
            assert_eq!(sent_as(version), Version::HTTP_11);
        }
    }

    #[test]
    fn a_request_that_cannot_be_sent_says_why() {
        assert!(matches!(
            prepared(Request::get("/items")),
            Err(HttpError::MissingHost)
        ));
        assert!(matches!(
            prepared(Request::get("https://shop/")),
            Err(HttpError::UnsupportedScheme)
        ));
    }
}
