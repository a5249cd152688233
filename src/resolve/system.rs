//! The operating system's resolver.

use std::{borrow::Cow, sync::Arc, time::Duration};

use tokio::time::timeout;

use crate::resolve::{Resolution, Resolve, ResolveError, ResolveErrorKind};

/// The system's resolver, `getaddrinfo`: `/etc/hosts`, NSS modules, mDNS, whatever the machine uses.
///
/// It tells neither a time-to-live nor *why* a name has no address: a missing name and a failing
/// name server look alike. So every error counts as a failure, which keeps the last good set, and
/// scaling to zero is not seen. A name with addresses of both families gives both, so a dual-stack pod
/// counts twice; and where the look-up of one family fails, glibc may give the other alone. In a cluster use [`Dns`](crate::Dns); this is for names outside it.
#[derive(Clone, Debug)]
pub struct System {
    host: Arc<str>,
    port: u16,
}

/// The same bound as `Dns`: glibc alone would try for 5 s a server and attempt.
const DEADLINE: Duration = Duration::from_secs(5);

impl System {
    /// Resolves `host`, and dials `port` there.
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl Resolve for System {
    async fn resolve(&self) -> Result<Resolution, ResolveError> {
        match timeout(DEADLINE, tokio::net::lookup_host((&*self.host, self.port))).await {
            Ok(Ok(addresses)) => Ok(addresses.collect()),
            Ok(Err(error)) => Err(ResolveError::failed(error).detail(&*self.host)),
            Err(elapsed) => Err(ResolveError::of(ResolveErrorKind::Timeout)
                .detail(&*self.host)
                .caused_by(elapsed)),
        }
    }

    fn service(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.host)
    }
}
