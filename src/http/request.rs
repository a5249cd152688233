//! The two forms of a request, HTTP/1.1's and HTTP/2's. It is kept as the caller wrote it, and takes on a form
//! when the connection is known that it goes over.

#[cfg(feature = "http2")]
use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, Request, Uri, Version, header::HOST, request::Parts, uri::Scheme};

use super::HttpError;

/// Whether a request can be sent: it says for whom it is, and its scheme, where it has one, is that of the
/// connections. An `https` URI must not travel in the open, and a server that is told `http` over TLS
/// rightly wonders.
pub(super) fn check(head: &Parts, is_tls: bool) -> Result<(), HttpError> {
    if head.uri.scheme().is_some_and(|own| *own != scheme(is_tls)) {
        return Err(HttpError::UnsupportedScheme);
    }
    let is_named = head
        .uri
        .authority()
        .is_some_and(|name| has_host(name.as_str(), is_tls));
    if !is_named && !head.headers.contains_key(HOST) {
        return Err(HttpError::MissingHost);
    }
    Ok(())
}

/// The `Host` header that a connection sent last: nearly always that of its next request, too.
#[derive(Default)]
pub(super) struct LastHost(Option<HeaderValue>);

impl LastHost {
    /// That of a request for this authority.
    fn or_new(&mut self, authority: &str, is_tls: bool) -> Result<HeaderValue, HttpError> {
        // As written. With user information it is another one, and made anew.
        let name = without_implied_port(authority, is_tls);
        if let Some(last) = self.0.as_ref().filter(|last| *last == name) {
            return Ok(last.clone());
        }
        let new = HeaderValue::from_str(host(authority, is_tls));
        let new = new.map_err(|_| HttpError::MissingHost)?;
        self.0 = Some(new.clone());
        Ok(new)
    }
}

/// Takes the authority of the URI into the `Host` header, unless there is one, and leaves path and
/// query (RFC 9112, 3.2.1). `CONNECT` keeps its URI. A request that came in by another version goes
/// out as HTTP/1.1, except HTTP/1.0, which promises less.
pub(super) fn to_http1<B>(
    request: &mut Request<B>,
    is_tls: bool,
    last: &mut LastHost,
) -> Result<(), HttpError> {
    if !request.headers().contains_key(HOST) {
        let name = request.uri().authority().ok_or(HttpError::MissingHost)?;
        let host = last.or_new(name.as_str(), is_tls)?;
        request.headers_mut().insert(HOST, host);
    }
    if request.version() != Version::HTTP_10 {
        *request.version_mut() = Version::HTTP_11;
    }
    if request.method() != Method::CONNECT && request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map_or_else(Uri::default, Uri::from);
    }
    Ok(())
}

/// Makes the pseudo-headers of HTTP/2: scheme, authority and path in the URI, and no `Host` (RFC 9113, 8.3.1),
/// which wins over the URI where both are there. `CONNECT` has its authority in the URI as it is.
#[cfg(feature = "http2")]
pub(super) fn to_http2<B>(request: &mut Request<B>, is_tls: bool) -> Result<(), HttpError> {
    *request.version_mut() = Version::HTTP_2;
    let named = request.headers_mut().remove(HOST);
    let is_whole = |name: &Authority| !name.as_str().contains('@');
    let is_ready = named.is_none()
        && request.uri().scheme().is_some()
        && request.uri().authority().is_some_and(is_whole);
    if is_ready || request.method() == Method::CONNECT {
        return Ok(());
    }
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    let authority = match (&named, &parts.authority) {
        (Some(named), _) => Authority::try_from(named.as_bytes()).ok(),
        (None, Some(name)) => Authority::try_from(host(name.as_str(), is_tls)).ok(),
        (None, None) => None,
    };
    parts.authority = Some(authority.ok_or(HttpError::MissingHost)?);
    parts.scheme = Some(scheme(is_tls));
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| HttpError::MissingHost)?;
    Ok(())
}

fn scheme(is_tls: bool) -> Scheme {
    if is_tls { Scheme::HTTPS } else { Scheme::HTTP }
}

/// Host and port as written, without user information (RFC 9110, 7.2) and without the port that
/// the scheme implies.
fn host(authority: &str, is_tls: bool) -> &str {
    let authority = without_implied_port(authority, is_tls);
    // Short: a loop is quicker than a search that prepares for long ones.
    let user = authority.bytes().rposition(|byte| byte == b'@');
    user.map_or(authority, |at| &authority[at + 1..])
}

/// Whether that leaves anything. Every request is asked, so nothing is searched for.
fn has_host(authority: &str, is_tls: bool) -> bool {
    !matches!(
        without_implied_port(authority, is_tls).as_bytes().last(),
        None | Some(b'@')
    )
}

fn without_implied_port(authority: &str, is_tls: bool) -> &str {
    let implied = if is_tls { ":443" } else { ":80" };
    let rest = authority.strip_suffix(implied).unwrap_or(authority);
    // A port may be empty (RFC 3986, 3.2.3).
    rest.strip_suffix(":").unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http1(request: http::request::Builder, is_tls: bool) -> Result<Request<()>, HttpError> {
        let (head, body) = request.body(()).unwrap().into_parts();
        check(&head, is_tls)?;
        let mut request = Request::from_parts(head, body);
        let mut last = LastHost::default();
        to_http1(&mut request, is_tls, &mut last)?;
        let once = format!("{request:?}");
        to_http1(&mut request, is_tls, &mut last)?;
        assert_eq!(
            format!("{request:?}"),
            once,
            "the second time changes nothing"
        );
        Ok(request)
    }

    fn prepared(request: http::request::Builder) -> Result<(String, String), HttpError> {
        let request = http1(request, false)?;
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
        assert_eq!(of("http://[fd00::80]/"), pair("/", "[fd00::80]"));
        assert_eq!(of("http://shop:/"), pair("/", "shop"));
    }

    #[test]
    fn the_host_is_that_of_the_request_and_not_of_the_one_before() {
        let mut last = LastHost::default();
        let mut host = |uri: &str| {
            let mut request = Request::get(uri).body(()).unwrap();
            to_http1(&mut request, false, &mut last).unwrap();
            request.headers()[HOST].to_str().unwrap().to_owned()
        };
        for (uri, expected) in [
            ("http://shop/", "shop"),
            ("http://shop:80/", "shop"),
            ("http://shop:8080/", "shop:8080"),
            ("http://shop/", "shop"),
            ("http://me:secret@shop/", "shop"),
            ("http://shop.example/", "shop.example"),
            ("http://SHOP.example/", "SHOP.example"),
        ] {
            assert_eq!(host(uri), expected, "{uri}");
        }
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
            http1(request, false).unwrap().version()
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
    fn user_information_and_a_port_name_no_host() {
        for (authority, is_tls, expected) in [
            ("", false, ""),
            (":", false, ""),
            (":80", false, ""),
            (":443", true, ""),
            ("me:secret@", false, ""),
            ("me@:80", false, ""),
            ("me@:", true, ""),
            (":8080", false, ":8080"),
            ("me@shop:80", false, "shop"),
            ("me:80@shop", false, "shop"),
            ("[fd00::80]:80", false, "[fd00::80]"),
        ] {
            assert_eq!(host(authority, is_tls), expected, "{authority}");
            let is_named = !expected.is_empty();
            assert_eq!(has_host(authority, is_tls), is_named, "{authority}");
        }
    }

    #[test]
    fn the_scheme_is_that_of_the_connections() {
        let own = http1(Request::get("https://shop:443/items"), true).unwrap();
        assert_eq!(own.headers()[HOST], "shop");
        assert!(matches!(
            http1(Request::get("http://shop/items"), true),
            Err(HttpError::UnsupportedScheme)
        ));
    }

    #[cfg(feature = "http2")]
    #[test]
    fn http2_has_scheme_and_authority_in_the_uri() {
        let of = |request: http::request::Builder| {
            let mut request = request.body(()).unwrap();
            to_http2(&mut request, false).map(|()| {
                assert!(!request.headers().contains_key(HOST));
                request.uri().to_string()
            })
        };
        let whole = "http://shop:8080/items?x=y";
        assert_eq!(of(Request::get(whole)).unwrap(), whole);
        let apart = Request::get("/items?x=y").header(HOST, "shop:8080");
        assert_eq!(of(apart).unwrap(), whole);
        let both = Request::get("http://pod/items?x=y").header(HOST, "shop:8080");
        assert_eq!(of(both).unwrap(), whole);
        let user = Request::get("http://me:secret@shop:8080/items?x=y");
        assert_eq!(of(user).unwrap(), whole);
        let odd = Request::get("/").header(HOST, "sh op");
        assert!(matches!(of(odd), Err(HttpError::MissingHost)));
    }

    #[cfg(feature = "http2")]
    #[test]
    fn a_request_changes_from_one_form_to_the_other_and_back() {
        let mut request = Request::get("http://shop/items").body(()).unwrap();
        let mut last = LastHost::default();
        to_http1(&mut request, false, &mut last).unwrap();
        to_http2(&mut request, false).unwrap();
        assert_eq!(request.uri(), "http://shop/items");
        to_http1(&mut request, false, &mut last).unwrap();
        assert_eq!(
            (request.uri().path(), &request.headers()[HOST]),
            ("/items", &HeaderValue::from_static("shop"))
        );
        assert_eq!(request.uri().authority(), None);
    }
}
