//! Names: what the user wrote, checked once, and the absolute names to ask for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use hickory_resolver::proto::rr::Name;

use super::name_error::{NameError, NameErrorKind};

/// What a headless source stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An IP address: one endpoint, without DNS.
    Ip(IpAddr),
    /// `localhost` or a name below it: never asked of a name server (RFC 6761).
    Localhost,
    Name(HostName),
}

/// A checked host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostName {
    /// `_http._tcp` of an SRV name; the search list goes behind the rest.
    prefix: Vec<String>,
    labels: Vec<String>,
    /// Written with a dot at the end: asked for as it is.
    absolute: bool,
}

/// Reads the name of a host.
pub(super) fn host(text: &str) -> Result<Host, NameError> {
    if let Some(ip) = ip(text) {
        return Ok(Host::Ip(ip));
    }
    let (labels, absolute) = labels(text)?;
    if is_localhost(&labels) {
        return Ok(Host::Localhost);
    }
    if is_numeric(&labels) {
        return Err(NameError::new(NameErrorKind::Address, text));
    }
    Ok(Host::Name(HostName {
        prefix: Vec::new(),
        labels,
        absolute,
    }))
}

/// Reads `_port._protocol.host`.
pub(super) fn srv(text: &str) -> Result<HostName, NameError> {
    if ip(text).is_some() {
        return Err(NameError::new(NameErrorKind::Address, text));
    }
    let (mut prefix, absolute) = labels(text)?;
    let is_srv = prefix.len() > 2
        && prefix[..2]
            .iter()
            .all(|label| label.len() > 1 && label.starts_with('_'));
    if !is_srv {
        return Err(NameError::new(NameErrorKind::SrvPrefix, text));
    }
    let labels = prefix.split_off(2);
    if is_localhost(&labels) || is_numeric(&labels) {
        return Err(NameError::new(NameErrorKind::Address, text));
    }
    Ok(HostName {
        prefix,
        labels,
        absolute,
    })
}

/// Reads a cluster domain: `cluster.local`.
pub(super) fn domain(text: &str) -> Result<Name, NameError> {
    if ip(text).is_some() {
        return Err(NameError::new(NameErrorKind::Address, text));
    }
    let (labels, _) = labels(text)?;
    if is_numeric(&labels) {
        return Err(NameError::new(NameErrorKind::Address, text));
    }
    join([&labels[..]]).ok_or_else(|| NameError::new(NameErrorKind::TooLong, text))
}

/// A port to dial. Port 0 means "any free one" to a listener, and nothing to a client.
pub(super) fn port(port: u16, name: &str) -> Result<u16, NameError> {
    if port == 0 {
        return Err(NameError::new(NameErrorKind::PortMissing, name));
    }
    Ok(port)
}

impl HostName {
    /// The same host without `_port._protocol.`.
    pub(super) fn without_prefix(&self) -> Self {
        Self {
            prefix: Vec::new(),
            ..self.clone()
        }
    }

    /// The absolute names to ask for, in order.
    ///
    /// Exact names of the cluster come first, then the search list, then the name as it is: the walk of a stub resolver without
    /// `ndots`, which would cost `web.shop` three questions more.
    pub(super) fn candidates(&self, search: &[Name], cluster: Option<&Name>) -> Vec<Name> {
        let detected = search.iter().find_map(domain_of);
        let cluster = cluster.cloned().or(detected);

        if self.absolute || self.is_cluster_name(cluster.as_ref()) {
            return self.below(&[]).into_iter().collect();
        }

        let mut names = Vec::new();
        let mut add = |name: Option<Name>| match name {
            // A search entry can make the name too long; a stub resolver skips it too.
            Some(name) if !names.contains(&name) => names.push(name),
            _ => {}
        };
        if let Some(cluster) = &cluster {
            match &self.labels[..] {
                [_] => {
                    if let Some(namespace) = search.first().and_then(namespace_of) {
                        add(self.below(&[&namespace, "svc", &text(cluster)]));
                    }
                }
                [_, _] => add(self.below(&["svc", &text(cluster)])),
                [_, .., last] if last.eq_ignore_ascii_case("svc") => {
                    add(self.below(&[&text(cluster)]))
                }
                _ => {}
            }
        }
        for entry in search {
            add(self.below(&[&text(entry)]));
        }
        add(self.below(&[]));
        names
    }

    /// Whether this is `something.svc.<domain>`, which nobody means to be looked up below a search domain.
    fn is_cluster_name(&self, cluster: Option<&Name>) -> bool {
        let ends_in = |domain: &str| {
            let domain: Vec<&str> = domain.split('.').collect();
            let Some(split) = self.labels.len().checked_sub(domain.len()) else {
                return false;
            };
            let same = |(a, b): (&String, &&str)| a.eq_ignore_ascii_case(b);
            self.labels[split..].iter().zip(&domain).all(same)
                && split >= 2
                && self.labels[split - 1].eq_ignore_ascii_case("svc")
        };
        // The default domain counts even when the pod's own could not be detected (dnsPolicy: Default).
        ends_in("cluster.local") || cluster.is_some_and(|cluster| ends_in(&text(cluster)))
    }

    fn below(&self, suffix: &[&str]) -> Option<Name> {
        let suffix: Vec<String> = suffix
            .iter()
            .flat_map(|part| part.split('.'))
            .filter(|label| !label.is_empty())
            .map(str::to_owned)
            .collect();
        join([&self.prefix[..], &self.labels[..], &suffix[..]])
    }
}

/// The cluster domain behind a search entry `svc.<domain>`, which kubelet writes into every pod's resolv.conf.
fn domain_of(entry: &Name) -> Option<Name> {
    let mut labels = entry.iter();
    if !labels.next()?.eq_ignore_ascii_case(b"svc") {
        return None;
    }
    let domain: Vec<&[u8]> = labels.collect();
    if domain.is_empty() {
        return None;
    }
    Name::from_labels(domain).ok()
}

/// The pod's own namespace: the first search entry is `<namespace>.svc.<domain>`.
fn namespace_of(entry: &Name) -> Option<String> {
    let mut labels = entry.iter();
    let namespace = labels.next()?;
    if !labels.next()?.eq_ignore_ascii_case(b"svc") {
        return None;
    }
    String::from_utf8(namespace.to_vec()).ok()
}

fn join<const N: usize>(parts: [&[String]; N]) -> Option<Name> {
    // `from_labels` makes the name absolute, so no search list and no `ndots` of the resolver ever applies.
    Name::from_labels(parts.into_iter().flatten().map(String::as_bytes)).ok()
}

fn text(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}

fn ip(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
    {
        return inner.parse().ok().map(IpAddr::V6);
    }
    // With a dot at the end only an IPv4 address can be meant.
    let dotted = || text.strip_suffix('.')?.parse::<Ipv4Addr>().ok();
    text.parse().ok().or_else(|| dotted().map(IpAddr::V4))
}

/// Splits and checks; tells whether a dot ends the name.
fn labels(text: &str) -> Result<(Vec<String>, bool), NameError> {
    let wrong = |kind| NameError::new(kind, text);
    if text.is_empty() || text == "." {
        return Err(wrong(NameErrorKind::Empty));
    }
    if text.contains("://") {
        return Err(wrong(NameErrorKind::Scheme));
    }
    if has_port(text) {
        return Err(wrong(NameErrorKind::Port));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    for label in name.split('.') {
        if label.is_empty() {
            return Err(wrong(NameErrorKind::EmptyLabel));
        }
        // DNS itself carries any byte; cluster names are narrower still (RFC 1123). Underscores: SRV, and names seen in the wild.
        if let Some(bad) = label
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')))
        {
            return Err(wrong(if bad.is_alphanumeric() {
                NameErrorKind::International
            } else {
                NameErrorKind::Character
            }));
        }
        if label.len() > 63 {
            return Err(wrong(NameErrorKind::LabelTooLong));
        }
    }
    // 255 bytes on the wire: a length byte a label and the root's zero leave 253 characters.
    if name.len() > 253 {
        return Err(wrong(NameErrorKind::TooLong));
    }
    let labels = name.split('.').map(str::to_owned).collect();
    Ok((labels, text.ends_with('.')))
}

fn has_port(text: &str) -> bool {
    text.parse::<SocketAddr>().is_ok()
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            !host.contains(':') && port.bytes().all(|byte| byte.is_ascii_digit())
        })
}

fn is_localhost(labels: &[String]) -> bool {
    labels
        .last()
        .is_some_and(|label| label.eq_ignore_ascii_case("localhost"))
}

/// `256.1.1.1` is a typing error, not a name. Fewer or more numbers may be: a namespace can be one.
fn is_numeric(labels: &[String]) -> bool {
    labels.len() == 4
        && labels
            .iter()
            .all(|label| label.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(entries: &[&str]) -> Vec<Name> {
        entries
            .iter()
            .map(|entry| Name::from_ascii(entry).unwrap())
            .collect()
    }

    fn walk(name: &str, search_list: &[&str], cluster: Option<&str>) -> Vec<String> {
        let name = match host(name).unwrap() {
            Host::Name(name) => name,
            other => panic!("not a name: {other:?}"),
        };
        let cluster = cluster.map(|cluster| domain(cluster).unwrap());
        name.candidates(&search(search_list), cluster.as_ref())
            .iter()
            .map(Name::to_ascii)
            .collect()
    }

    const POD: [&str; 4] = [
        "shop.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "corp.example",
    ];

    #[test]
    fn a_trailing_dot_is_taken_verbatim() {
        assert_eq!(walk("web.shop.", &POD, None), ["web.shop."]);
    }

    #[test]
    fn a_full_cluster_name_is_asked_once() {
        assert_eq!(
            walk("web.shop.svc.cluster.local", &POD, None),
            ["web.shop.svc.cluster.local."]
        );
        assert_eq!(
            walk(
                "web.shop.svc.k8s.corp",
                &["a.svc.k8s.corp", "svc.k8s.corp"],
                None
            ),
            ["web.shop.svc.k8s.corp."]
        );
        assert_eq!(
            walk("WEB.shop.SVC.Cluster.Local", &[], None),
            ["WEB.shop.SVC.Cluster.Local."]
        );
    }

    #[test]
    fn short_names_try_the_exact_cluster_name_first() {
        assert_eq!(walk("web", &POD, None)[0], "web.shop.svc.cluster.local.");
        assert_eq!(
            walk("web.other", &POD, None)[0],
            "web.other.svc.cluster.local."
        );
        assert_eq!(
            walk("web.other.svc", &POD, None)[0],
            "web.other.svc.cluster.local."
        );
        assert_eq!(
            walk("web.other", &[], Some("k8s.corp")),
            ["web.other.svc.k8s.corp.", "web.other."]
        );
    }

    #[test]
    fn then_the_search_list_then_the_name_itself_each_once() {
        assert_eq!(
            walk("web.other", &POD, None),
            [
                "web.other.svc.cluster.local.",
                "web.other.shop.svc.cluster.local.",
                "web.other.cluster.local.",
                "web.other.corp.example.",
                "web.other."
            ]
        );
    }

    #[test]
    fn the_prefix_of_an_srv_name_stays_in_front() {
        let name = srv("_http._tcp.web").unwrap();
        let names = name.candidates(&search(&POD), None);
        assert_eq!(
            names[0].to_ascii(),
            "_http._tcp.web.shop.svc.cluster.local."
        );
        let plain = name.without_prefix().candidates(&search(&POD), None);
        assert_eq!(plain[0].to_ascii(), "web.shop.svc.cluster.local.");
    }

    #[test]
    fn a_search_entry_that_makes_the_name_too_long_is_skipped() {
        let long = [
            "a".repeat(60),
            "b".repeat(60),
            "c".repeat(60),
            "d".repeat(60),
        ]
        .join(".");
        assert_eq!(walk(&long, &POD, None).len(), 1);
    }

    #[test]
    fn addresses_and_localhost_need_no_dns() {
        let ip = |text: &str| Host::Ip(text.parse().unwrap());
        assert_eq!(host("10.0.0.1").unwrap(), ip("10.0.0.1"));
        assert_eq!(host("10.0.0.1.").unwrap(), ip("10.0.0.1"));
        assert_eq!(host("::1").unwrap(), ip("::1"));
        assert_eq!(host("[fd00::7]").unwrap(), ip("fd00::7"));
        assert_eq!(host("localhost").unwrap(), Host::Localhost);
        assert_eq!(host("db.LocalHost.").unwrap(), Host::Localhost);
    }

    #[test]
    fn errors_show_a_short_form_of_the_name() {
        let error = host(&format!("{}\0", "x".repeat(5_000))).unwrap_err();
        assert!(error.to_string().len() < 250, "{error}");
        assert_eq!(host("a\0b").unwrap_err().to_string().find('\0'), None);
    }
}
