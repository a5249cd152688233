//! Whether a pod is well, by the gRPC health protocol.

use std::{
    borrow::Cow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use super::{Observation, Probe, ProbeError, Role};
use crate::endpoint::Endpoint;
#[cfg(feature = "tls")]
use crate::tls::Tls;

mod message;
mod session;

pub use session::GrpcSession;
use session::Reply;

/// Asks each pod by the gRPC health protocol: one that says `SERVING` is well, of
/// [`Role::Unknown`](crate::Role::Unknown).
///
/// The question of a health check ([`Check::grpc`](crate::Check::grpc)). It is `grpc.health.v1.Health/Check` (grpc,
/// `doc/health-checking.md`), over one HTTP/2 connection per pod that stays open between questions: plain, by prior
/// knowledge, or over TLS.
///
/// ```
/// use headless_lb::{Balancer, Check, Fixed, probe::GrpcHealth};
/// use std::net::SocketAddr;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let pods = Fixed::new([7, 8].map(|host| SocketAddr::from(([10, 244, 1, host], 50051))));
/// let shop = Balancer::builder(pods)
///     .check(Check::new(GrpcHealth::new().service("shop.Catalog")))
///     .spawn();
/// # drop(shop); }
/// ```
///
/// # What it tells
///
/// - `SERVING`: well. `NOT_SERVING`: [definitely](ProbeError::is_definitive) not, as the server itself says so.
/// - `SERVICE_UNKNOWN`, or the status `NOT_FOUND` that this call has for it: an error that names the service. The
///   server has health, and none of that name: it is a typo, or another server.
/// - **`UNIMPLEMENTED`: well**, with one warning. The server answers gRPC, which is more than a connect proves, and has
///   no opinion of itself. gRPC's own clients take it so (gRFC A17: as if there were no check); the kubelet counts a
///   failure (`pkg/probe/grpc`). But the kubelet asks one pod of one version. Here a rollout that brings the health
///   service would set the old pods aside, and send all requests to the first of the new ones.
/// - Any other status, a reply that is none, silence: an error.
#[derive(Clone)]
#[must_use = "give it to Check::new"]
pub struct GrpcHealth {
    service: Cow<'static, str>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    /// That there is nothing to ask was said.
    was_told: Arc<AtomicBool>,
}

impl GrpcHealth {
    /// Asks for the health of the whole server, in the open.
    pub fn new() -> Self {
        Self {
            service: Cow::Borrowed(""),
            #[cfg(feature = "tls")]
            tls: None,
            was_told: Arc::default(),
        }
    }

    /// Asks for the health of this service, by the name it has in its `.proto` as a rule: `package.Service`. Default:
    /// the empty name, which means the whole server.
    pub fn service(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.service = name.into();
        self
    }

    /// Asks over TLS; HTTP/2 is all that is offered by ALPN.
    #[cfg(feature = "tls")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tls")))]
    pub fn tls(mut self, mut tls: Tls) -> Self {
        Arc::make_mut(&mut tls.config).alpn_protocols = vec![b"h2".to_vec()];
        self.tls = Some(tls);
        self
    }

    async fn dial(&self, endpoint: &Endpoint) -> Result<GrpcSession, ProbeError> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return GrpcSession::dial_tls(endpoint, tls).await;
        }
        GrpcSession::dial(endpoint).await
    }

    async fn ask(
        &self,
        endpoint: &Endpoint,
        session: &mut GrpcSession,
    ) -> Result<Observation, ProbeError> {
        let reply = session.ask(&self.service).await?;
        if reply == Reply::Unimplemented && !self.was_told.swap(true, Relaxed) {
            tracing::warn!(%endpoint, "no gRPC health service: it counts as healthy while it answers");
        }
        Ok(Observation::of(Role::Unknown))
    }
}

impl Default for GrpcHealth {
    fn default() -> Self {
        Self::new()
    }
}

impl Probe for GrpcHealth {
    type Session = GrpcSession;

    async fn open(
        &self,
        endpoint: &Endpoint,
    ) -> Result<(GrpcSession, Option<Observation>), ProbeError> {
        let mut session = self.dial(endpoint).await?;
        let seen = self.ask(endpoint, &mut session).await?;
        Ok((session, Some(seen)))
    }

    async fn observe(
        &self,
        endpoint: &Endpoint,
        session: &mut GrpcSession,
    ) -> Result<Observation, ProbeError> {
        self.ask(endpoint, session).await
    }

    async fn signalled(&self, session: &mut GrpcSession) {
        session.ended().await;
    }
}

impl fmt::Debug for GrpcHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcHealth")
            .field("service", &self.service)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{error::Error, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::{Instant, timeout},
    };

    use super::{session::LONGEST, *};
    use crate::probe::ProbeFailure;

    /// One frame of HTTP/2 (RFC 9113, 4.1).
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let stream = stream.to_be_bytes();
        [&length[1..], &[kind, flags], &stream, payload].concat()
    }

    /// Fields that no table knows (RFC 7541, 6.2.2), in one frame that may end the stream.
    fn headers(stream: u32, fields: &[(&str, &str)], is_end: bool) -> Vec<u8> {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let field = |(name, value): &(&str, &str)| [vec![0], text(name), text(value)].concat();
        let block: Vec<u8> = fields.iter().flat_map(field).collect();
        frame(1, 4 | u8::from(is_end), stream, &block)
    }

    const SETTINGS: u8 = 4;
    const DATA: u8 = 0;
    const OK: &[(&str, &str)] = &[(":status", "200"), ("content-type", "application/grpc")];

    /// What a server says first, and acknowledges.
    fn greeting() -> Vec<u8> {
        [frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, 1, 0, &[])].concat()
    }

    /// All that a server says to a first question that it answers with this message.
    fn answer(message: &[u8], status: &str) -> Vec<u8> {
        [
            greeting(),
            headers(1, OK, false),
            frame(DATA, 0, 1, message),
            headers(
                1,
                &[("grpc-status", status), ("grpc-message", "so%20so")],
                true,
            ),
        ]
        .concat()
    }

    const SERVING: &[u8] = &[0, 0, 0, 0, 2, 8, 1];

    /// Reads up to the end of the first question: the data of stream 1. A client takes no answer before that.
    async fn question(stream: &mut DuplexStream) {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        let mut head = [0; 9];
        while (head[3], head[8]) != (DATA, 1) {
            stream.read_exact(&mut head).await.unwrap();
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
        }
    }

    /// What the probe makes of a server that says this to its first question and hangs up, or falls silent.
    async fn heard(said: &[u8], hangs_up: bool) -> Result<Observation, ProbeError> {
        let (ours, mut theirs) = duplex(1 << 20);
        let served = async {
            question(&mut theirs).await;
            let _ = theirs.write_all(said).await;
            if hangs_up {
                drop(theirs);
            } else {
                std::future::pending::<()>().await;
            }
            std::future::pending::<()>().await;
        };
        let asked = async {
            let mut session = over(ours).await?;
            GrpcHealth::new().ask(&endpoint(), &mut session).await
        };
        let asked = timeout(Duration::from_secs(5), asked);
        tokio::select! {
            seen = asked => seen.map_err(|elapsed| ProbeError::new(ProbeFailure::Timeout, elapsed))?,
            () = served => unreachable!("it waits"),
        }
    }

    /// Whose it would be.
    fn endpoint() -> Endpoint {
        let addr = std::net::SocketAddr::from(([10, 0, 0, 1], 80));
        Endpoint::new(addr.into(), Instant::now())
    }

    async fn over(stream: DuplexStream) -> Result<GrpcSession, ProbeError> {
        GrpcSession::over(stream, "http://10.0.0.1:80").await
    }

    fn text(error: &ProbeError) -> String {
        format!("{error}: {}", error.source().unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn serving_is_healthy_and_all_else_an_error_that_says_what() {
        for said in [
            answer(SERVING, "0"),
            // In two pieces, with a field that nobody knows.
            [
                greeting(),
                headers(1, OK, false),
                frame(DATA, 0, 1, &[0, 0, 0]),
                frame(DATA, 0, 1, &[0, 5, 0x12, 1, 9, 8, 1]),
                headers(1, &[("grpc-status", "0")], true),
            ]
            .concat(),
        ] {
            let seen = heard(&said, false).await.unwrap();
            assert_eq!(seen, Observation::of(Role::Unknown));
        }
        for (message, status, says) in [
            (&[0, 0, 0, 0, 2, 8, 2][..], "0", "NOT_SERVING"),
            (&[0, 0, 0, 0, 2, 8, 3], "0", "no service"),
            (&[0, 0, 0, 0, 0], "0", "UNKNOWN"),
            (&[0, 0, 0, 0, 2, 8, 9], "0", "9"),
            (&[1, 0, 0, 0, 2, 8, 1], "0", "compressed"),
            (&[0, 0, 0, 0, 3, 8, 1], "0", "no health"),
            (&[], "0", "no health"),
            (SERVING, "14", "14: so%20so"),
            (&[], "5", "no service"),
            (&[], "x", "no gRPC status"),
        ] {
            let error = heard(&answer(message, status), false).await.unwrap_err();
            assert!(
                text(&error).contains(says),
                "{message:?} {status}: {}",
                text(&error)
            );
        }
        let refused = heard(&answer(&[], "16"), false).await.unwrap_err();
        assert_eq!(refused.failure(), ProbeFailure::Auth);
        let ill = heard(&answer(&[0, 0, 0, 0, 2, 8, 2], "0"), false)
            .await
            .unwrap_err();
        assert!(ill.is_definitive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_without_a_health_service_is_healthy_and_one_that_speaks_no_grpc_is_not() {
        let trailers_only = [OK, &[("grpc-status", "12")]].concat();
        let said = [greeting(), headers(1, &trailers_only, true)].concat();
        assert!(heard(&said, false).await.is_ok());
        let not_found = [greeting(), headers(1, &[(":status", "404")], true)].concat();
        let error = heard(&not_found, false).await.unwrap_err();
        assert!(text(&error).contains("404"), "{}", text(&error));
        let page = [
            greeting(),
            headers(1, OK, false),
            frame(DATA, 1, 1, SERVING),
        ]
        .concat();
        let error = heard(&page, false).await.unwrap_err();
        assert!(text(&error).contains("no gRPC status"), "{}", text(&error));
        for said in [
            &b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"[..],
            b"SSH-2.0-x\r\n",
        ] {
            assert!(heard(said, true).await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_cut_at_any_byte_is_an_error() {
        let said = answer(SERVING, "0");
        for end in 0..said.len() {
            for hangs_up in [true, false] {
                let error = heard(&said[..end], hangs_up).await.expect_err("it is cut");
                let is_timeout = error.failure() == ProbeFailure::Timeout;
                assert_eq!(is_timeout, !hangs_up, "{end}: {}", text(&error));
            }
        }
        assert!(heard(&said, true).await.is_ok(), "one that is whole");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_with_any_byte_garbled_ends_in_time() {
        let said = answer(SERVING, "0");
        let mut healthy = 0;
        for at in 0..said.len() {
            for garbled in [0x00, 0x01, 0x7f, 0x80, 0xff, said[at] ^ 0x04] {
                let mut said = said.clone();
                said[at] = garbled;
                // Whatever it says: it neither panics nor waits for more than its limit.
                healthy += u32::from(heard(&said, true).await.is_ok());
            }
        }
        let asked = u32::try_from(said.len() * 6).unwrap();
        assert!(
            healthy < asked / 2,
            "{healthy} of {asked}: names of fields are not looked at"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_end_is_cut_off() {
        let chunk = [0; 1024];
        let mut data = vec![greeting(), headers(1, OK, false)];
        data.extend((0..=LONGEST / 1024).map(|_| frame(DATA, 0, 1, &chunk)));
        let error = heard(&data.concat(), false).await.unwrap_err();
        assert!(text(&error).contains("too long"), "{}", text(&error));

        let value = "x".repeat(120);
        let fields: Vec<_> = [(":status", "200")]
            .into_iter()
            .chain((0..100).map(|_| ("a", &*value)))
            .collect();
        let said = [greeting(), headers(1, &fields, false)].concat();
        let error = heard(&said, false).await.unwrap_err();
        assert_ne!(error.failure(), ProbeFailure::Timeout, "{}", text(&error));

        let mut interim = vec![greeting()];
        interim.extend((0..2000).map(|_| headers(1, &[(":status", "103")], false)));
        assert!(heard(&interim.concat(), true).await.is_err());
        let empty = std::iter::repeat_n(frame(DATA, 0, 1, &[]), 100_000);
        let said: Vec<u8> = [greeting(), headers(1, OK, false)]
            .into_iter()
            .chain(empty)
            .flatten()
            .collect();
        assert!(heard(&said, true).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_whose_connection_ended_says_so_and_is_closed() {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut session = over(ours).await.unwrap();
        let (asked, endpoint) = (GrpcHealth::new(), endpoint());
        let served = async {
            question(&mut theirs).await;
            theirs.write_all(&answer(SERVING, "0")).await.unwrap();
        };
        let (seen, ()) = tokio::join!(asked.ask(&endpoint, &mut session), served);
        assert!(seen.is_ok(), "{seen:?}");
        let idle = timeout(Duration::from_secs(60), asked.signalled(&mut session));
        assert!(idle.await.is_err(), "it has nothing to say");
        drop(theirs);
        asked.signalled(&mut session).await;
        let error = asked.ask(&endpoint, &mut session).await.unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Closed);
        asked.signalled(&mut session).await;
    }

    const GO_AWAY: u8 = 7;

    /// A question that a server does not take because it ends may be asked again.
    #[tokio::test(start_paused = true)]
    async fn a_goodbye_instead_of_an_answer_proves_nothing() {
        // It has served no stream, and has no error.
        let goodbye = [greeting(), frame(GO_AWAY, 0, 0, &[0; 8])].concat();
        for hangs_up in [true, false] {
            let error = heard(&goodbye, hangs_up).await.unwrap_err();
            assert_eq!(error.failure(), ProbeFailure::Closed, "{}", text(&error));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_goodbye_ends_the_session_also_if_it_does_not_hang_up() {
        let (ours, mut theirs) = duplex(1 << 16);
        let mut session = over(ours).await.unwrap();
        let (asked, endpoint) = (GrpcHealth::new(), endpoint());
        let served = async {
            question(&mut theirs).await;
            // The last stream that it serves, and no error.
            let goodbye = frame(GO_AWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            let said = [answer(SERVING, "0"), goodbye].concat();
            theirs.write_all(&said).await.unwrap();
        };
        let (seen, ()) = tokio::join!(asked.ask(&endpoint, &mut session), served);
        assert!(seen.is_ok(), "{seen:?}");
        let _ = timeout(Duration::from_secs(1), asked.signalled(&mut session)).await;
        let again = timeout(Duration::from_secs(1), asked.ask(&endpoint, &mut session)).await;
        let error = again.expect("it need not be waited for").unwrap_err();
        assert_eq!(error.failure(), ProbeFailure::Closed, "{}", text(&error));
    }
}
