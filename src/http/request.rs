//! The two forms of a request: HTTP/1.1's, in which it is kept, and HTTP/2's.

use http::{HeaderValue, Method, Uri, Version, header::HOST, request::Parts, uri::Scheme};
#[cfg(feature = "http2")]
use http::{Request, uri::Authority};

use super::HttpError;

/// Takes the authority of the URI into the `Host` header, unless there is one, and leaves path and
/// query (RFC 9112, 3.2.1). `CONNECT` keeps its URI. A request that came in by another version goes
/// out as HTTP/1.1, except HTTP/1.0, which promises less.
///
/// The scheme, where the URI has one, must be that of the connections: an `https` URI must not travel
/// in the open, and a server that is told `http` over TLS rightly wonders.
pub(super) fn to_origin_form(head: &mut Parts, is_tls: bool) -> Result<(), HttpError> {
    let scheme = scheme(is_tls);
    if head.uri.scheme().is_some_and(|own| *own != scheme) {
        return Err(HttpError::UnsupportedScheme);
    }
    if !head.headers.contains_key(HOST) {
        let host = host_header(&head.uri, is_tls).ok_or(HttpError::MissingHost)?;
        head.headers.insert(HOST, host);
    }
    if head.version != Version::HTTP_10 {
        head.version = Version::HTTP_11;
    }
    if head.method != Method::CONNECT {
        let path = head.uri.path_and_query().cloned();
        head.uri = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

/// Makes the pseudo-headers of HTTP/2 out of the form above: scheme, authority and path in the URI, and
/// no `Host` (RFC 9113, 8.3.1). `CONNECT` has its authority in the URI as it is.
#[cfg(feature = "http2")]
pub(super) fn to_pseudo_headers<B>(
    request: &mut Request<B>,
    is_tls: bool,
) -> Result<(), HttpError> {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(HOST);
    if request.method() == Method::CONNECT {
        return Ok(());
    }
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.authority = Some(authority.ok_or(HttpError::MissingHost)?);
    parts.scheme = Some(scheme(is_tls));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| HttpError::MissingHost)?;
    Ok(())
}

fn scheme(is_tls: bool) -> Scheme {
    if is_tls { Scheme::HTTPS } else { Scheme::HTTP }
}

/// Host and port as written, without user information (RFC 9110, 7.2) and without the port that
/// the scheme implies.
fn host_header(uri: &Uri, is_tls: bool) -> Option<HeaderValue> {
    let authority = uri.authority()?.as_str();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let implied = if is_tls { ":443" } else { ":80" };
    let host = host.strip_suffix(implied).unwrap_or(host);
    // A port may be empty (RFC 3986, 3.2.3).
    let host = host.strip_suffix(':').unwrap_or(host);
    if host.is_empty() {
        return None;
    }
    HeaderValue::from_str(host).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn head(request: http::request::Builder) -> Parts {
        request.body(()).unwrap().into_parts().0
    }

    fn prepared(request: http::request::Builder) -> Result<(String, String), HttpError> {
        let mut head = head(request);
        to_origin_form(&mut head, false)?;
        let host = head.headers[HOST].to_str().unwrap().to_owned();
        Ok((head.uri.to_string(), host))
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
        assert_eq!(of("http://[fd00::80]/"), pair("/", "[fd00::80]"));
        assert_eq!(of("http://shop:/"), pair("/", "shop"));
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
            let mut head = head(Request::get("http://pod/").version(version));
            to_origin_form(&mut head, false).unwrap();
            head.version
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

    #[test]
    fn the_scheme_is_that_of_the_connections() {
        let mut own = head(Request::get("https://shop:443/items"));
        to_origin_form(&mut own, true).unwrap();
        assert_eq!(own.headers[HOST], "shop");
        let mut open = head(Request::get("http://shop/items"));
        assert!(matches!(
            to_origin_form(&mut open, true),
            Err(HttpError::UnsupportedScheme)
        ));
    }

    #[cfg(feature = "http2")]
    #[test]
    fn http2_has_scheme_and_authority_in_the_uri() {
        let mut request = Request::get("/items?x=y")
            .header(HOST, "shop:8080")
            .body(())
            .unwrap();
        to_pseudo_headers(&mut request, false).unwrap();
        assert_eq!(request.uri(), "http://shop:8080/items?x=y");
        assert!(!request.headers().contains_key(HOST));

        let mut odd = Request::get("/").header(HOST, "sh op").body(()).unwrap();
        let refused = to_pseudo_headers(&mut odd, false);
        assert!(matches!(refused, Err(HttpError::MissingHost)));
    }
}
