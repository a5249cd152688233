//! The open connection: commands out, replies in.

use std::{fmt, io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    answer,
    resp::{self, LONGEST, Reply},
};
use crate::{
    endpoint::Endpoint,
    probe::{Lineage, Observation, ProbeError, Role},
};
#[cfg(feature = "tls")]
use crate::{probe::ProbeFailure, tls::Tls};

/// Who asks.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) username: Option<Arc<str>>,
    pub(super) password: Option<Arc<str>>,
}

impl Login {
    /// Without a password there is nothing to prove: not even a user without one logs in with none.
    fn command(&self) -> Option<Vec<&[u8]>> {
        if self.username.is_none() && self.password.is_none() {
            return None;
        }
        let username = self.username.as_deref().map(str::as_bytes);
        let password = self.password.as_deref().unwrap_or_default().as_bytes();
        Some(
            [Some(&b"AUTH"[..]), username, Some(password)]
                .into_iter()
                .flatten()
                .collect(),
        )
    }
}

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection of the probe [`Redis`](super::Redis).
pub struct RedisSession {
    stream: Box<dyn Stream>,
    /// Read, and not taken yet. Between two questions it is empty, unless the server spoke unasked.
    read: Vec<u8>,
    /// Why the last question could not be written, until what was said before that is read.
    unwritten: Option<io::Error>,
    /// The node may be loading: it was just opened, or is a replica that has lost its master.
    may_load: bool,
    /// The last lineage with a past, and whether the node was promoted to it.
    judged: Option<(Lineage, bool)>,
}

impl RedisSession {
    pub(super) async fn dial(endpoint: &Endpoint) -> Result<Self, ProbeError> {
        Ok(Self::over(connect(endpoint).await?))
    }

    #[cfg(feature = "tls")]
    pub(super) async fn dial_tls(endpoint: &Endpoint, tls: &Tls) -> Result<Self, ProbeError> {
        let name = tls
            .name_of(endpoint)
            .map_err(|error| ProbeError::new(ProbeFailure::Tls, error))?;
        let stream = connect(endpoint).await?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.config));
        let secured = connector.connect(name, stream).await.map_err(|error| {
            let is_tls = error
                .get_ref()
                .is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>());
            // One that was broken off says nothing: so does a server whose connections are used up.
            if is_tls {
                ProbeError::new(ProbeFailure::Tls, error)
            } else {
                ProbeError::closed(error)
            }
        })?;
        Ok(Self::over(secured))
    }

    fn over(stream: impl Stream + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            read: Vec::new(),
            unwritten: None,
            may_load: true,
            judged: None,
        }
    }

    /// Authenticates and asks, in one round trip.
    pub(super) async fn log_in(&mut self, login: &Login) -> Result<Observation, ProbeError> {
        let mut commands = Vec::new();
        let auth = login.command();
        if let Some(auth) = &auth {
            resp::write(auth, &mut commands);
        }
        self.send(commands).await;
        if auth.is_some() {
            answer::logged_in(&self.reply(ProbeError::opening).await?)?;
        }
        self.answers(ProbeError::opening).await
    }

    /// Asks what the node is.
    pub(super) async fn ask(&mut self) -> Result<Observation, ProbeError> {
        if !self.read.is_empty() {
            let said = String::from_utf8_lossy(&self.read);
            return Err(ProbeError::closed(format!(
                "the server spoke unasked: {}",
                answer::shortened(&said)
            )));
        }
        self.send(Vec::new()).await;
        self.answers(ProbeError::closed).await
    }

    /// Completes when the connection ends, or the server says something that nobody asked for.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn stirred(&mut self) {
        if self.read.is_empty() {
            // Its end, too, shows when the next question is asked.
            let _ = self.stream.read_buf(&mut self.read).await;
        }
    }

    /// Writes `first` and the questions at once: a server runs commands that arrive together one after the
    /// other, so that no promotion comes between.
    async fn send(&mut self, first: Vec<u8>) {
        let mut commands = first;
        if self.may_load {
            resp::write(&[b"INFO", b"persistence"], &mut commands);
        }
        resp::write(&[b"ROLE"], &mut commands);
        resp::write(&[b"INFO", b"replication"], &mut commands);
        self.write(&commands).await;
    }

    async fn write(&mut self, commands: &[u8]) {
        let written = async {
            self.stream.write_all(commands).await?;
            self.stream.flush().await
        };
        self.unwritten = written.await.err();
    }

    async fn answers(
        &mut self,
        lost: fn(io::Error) -> ProbeError,
    ) -> Result<Observation, ProbeError> {
        if self.may_load {
            answer::loaded(&self.reply(lost).await?)?;
        }
        let (role, replication) = (self.reply(lost).await?, self.reply(lost).await?);
        let observation = answer::observed(&role, &replication)?;
        self.may_load = observation.role() == Role::Replica && observation.position().is_none();
        match observation.lineage().cloned() {
            Some(lineage) if !self.may_go_on(&observation, &lineage, lost).await? => {
                Ok(observation.in_lineage(Lineage::of(lineage.id())))
            }
            _ => Ok(observation),
        }
    }

    /// Whether the node has its past by a promotion. A server that starts as a master takes the id in its file for
    /// its second one as well, however old that file is: it supersedes nobody.
    async fn may_go_on(
        &mut self,
        observation: &Observation,
        lineage: &Lineage,
        lost: fn(io::Error) -> ProbeError,
    ) -> Result<bool, ProbeError> {
        if observation.role() != Role::Primary || lineage.previous().is_none() {
            return Ok(true);
        }
        if let Some((judged, was_promoted)) = &self.judged
            && judged == lineage
        {
            return Ok(*was_promoted);
        }
        let mut question = Vec::new();
        resp::write(&[b"INFO", b"stats"], &mut question);
        self.write(&question).await;
        let was_promoted = answer::was_replica(&self.reply(lost).await?)?;
        self.judged = Some((lineage.clone(), was_promoted));
        Ok(was_promoted)
    }

    /// The next reply. A server that turns us down says why and closes: that is read first, also if the question
    /// could not be written any more.
    async fn reply(&mut self, lost: fn(io::Error) -> ProbeError) -> Result<Reply, ProbeError> {
        loop {
            match resp::read(&self.read) {
                Ok(Some((reply, length))) => {
                    self.read.drain(..length);
                    return Ok(reply);
                }
                Ok(None) => {}
                Err(resp::Malformed) => {
                    return Err(ProbeError::passing(
                        "this is no Redis: its answer is not RESP",
                    ));
                }
            }
            let room = LONGEST.min(self.read.len().max(1024));
            self.read.reserve(room);
            let ended = match self.stream.read_buf(&mut self.read).await {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => continue,
                Err(error) => error,
            };
            return Err(lost(self.unwritten.take().unwrap_or(ended)));
        }
    }
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ProbeError> {
    let stream = TcpStream::connect(endpoint.addr()).await;
    let stream = stream.map_err(ProbeError::opening)?;
    // The question is one small write: waiting for more would only delay it.
    stream.set_nodelay(true).map_err(ProbeError::opening)?;
    Ok(stream)
}

impl fmt::Debug for RedisSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSession").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::io::{DuplexStream, duplex};

    use super::*;
    use crate::probe::ProbeFailure;

    const LOADED: &str = "$11\r\nloading:0\r\n\r\n";
    const MASTER: &str = "*3\r\n$6\r\nmaster\r\n:42\r\n*0\r\n";
    const LOST: &str = "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.7\r\n:6379\r\n$7\r\nconnect\r\n:-1\r\n";
    const LINEAGE: &str = "$18\r\nmaster_replid:aa\r\n\r\n";

    const AUTH: &str = "*3\r\n$4\r\nAUTH\r\n$5\r\nprobe\r\n$3\r\npwd\r\n";
    const PERSISTENCE: &str = "*2\r\n$4\r\nINFO\r\n$11\r\npersistence\r\n";
    const QUESTION: &str = "*1\r\n$4\r\nROLE\r\n*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";

    /// A session, and the server's end of it. One byte at a time goes through, so each reply is split everywhere.
    fn session() -> (RedisSession, DuplexStream) {
        let (ours, theirs) = duplex(1);
        (RedisSession::over(ours), theirs)
    }

    /// Reads what is to be asked, and answers.
    async fn serve(peer: &mut DuplexStream, questions: &[&str], answers: &[&str]) {
        let mut asked = vec![0; questions.concat().len()];
        peer.read_exact(&mut asked).await.unwrap();
        assert_eq!(String::from_utf8(asked).unwrap(), questions.concat());
        peer.write_all(answers.concat().as_bytes()).await.unwrap();
    }

    fn login() -> Login {
        Login {
            username: Some("probe".into()),
            password: Some("pwd".into()),
        }
    }

    #[tokio::test]
    async fn all_is_asked_in_one_round_trip_and_understood_byte_by_byte() {
        let (mut session, mut peer) = session();
        let (questions, answers) = (
            [AUTH, PERSISTENCE, QUESTION],
            ["+OK\r\n", LOADED, MASTER, LINEAGE],
        );
        let login = login();
        let (seen, ()) = tokio::join!(
            session.log_in(&login),
            serve(&mut peer, &questions, &answers)
        );
        let seen = seen.unwrap();
        assert_eq!((seen.role(), seen.position()), (Role::Primary, Some(42)));
        assert_eq!(seen.lineage().map(crate::Lineage::id), Some("aa"));
        // A master that serves does not begin to load while the connection lives.
        let (seen, ()) = tokio::join!(
            session.ask(),
            serve(&mut peer, &[QUESTION], &[LOST, LINEAGE])
        );
        assert_eq!(seen.unwrap().role(), Role::Replica);
        // A replica without its master may.
        let loading = LOADED.replace('0', "1");
        let answers = [&*loading];
        let (seen, ()) = tokio::join!(
            session.ask(),
            serve(&mut peer, &[PERSISTENCE, QUESTION], &answers)
        );
        assert_eq!(seen.unwrap_err().failure(), ProbeFailure::Starting);
    }

    #[tokio::test]
    async fn a_master_has_a_past_only_if_it_was_a_replica_since_it_started() {
        const PAST: &str = "$37\r\nmaster_replid:bb\r\nmaster_replid2:aa\r\n\r\n";
        const STATS: &str = "*2\r\n$4\r\nINFO\r\n$5\r\nstats\r\n";
        let stats = |bytes: &str| {
            let info = format!("total_net_repl_input_bytes:{bytes}\r\n");
            format!("${}\r\n{info}\r\n", info.len())
        };
        for (bytes, previous) in [("269", Some("aa")), ("0", None)] {
            let (mut session, mut peer) = session();
            let login = Login::default();
            let served = async {
                serve(&mut peer, &[PERSISTENCE, QUESTION], &[LOADED, MASTER, PAST]).await;
                serve(&mut peer, &[STATS], &[&*stats(bytes)]).await;
                serve(&mut peer, &[QUESTION], &[MASTER, PAST]).await;
            };
            let asked = async {
                let first = session.log_in(&login).await.unwrap();
                // Once for each lineage.
                (first, session.ask().await.unwrap())
            };
            let ((first, second), ()) = tokio::join!(asked, served);
            assert_eq!(first.lineage().unwrap().previous(), previous);
            assert_eq!(first, second);
        }
    }

    #[tokio::test]
    async fn a_server_that_turns_us_down_and_closes_is_heard() {
        let (ours, mut peer) = duplex(1024);
        let mut session = RedisSession::over(ours);
        peer.write_all(b"-ERR max number of clients reached\r\n")
            .await
            .unwrap();
        drop(peer);
        let refused = session.log_in(&login()).await.unwrap_err();
        assert_eq!(refused.failure(), ProbeFailure::Saturated);
    }

    #[tokio::test]
    async fn the_end_of_an_idle_session_shows_at_once_and_proves_nothing() {
        let (mut session, peer) = session();
        assert!(session.stirred().now_or_never().is_none());
        drop(peer);
        session.stirred().await;
        let ended = session.ask().await.unwrap_err();
        assert_eq!(ended.failure(), ProbeFailure::Closed);
        assert!(!ended.is_definitive());
    }

    #[tokio::test]
    async fn what_a_server_says_unasked_is_no_answer() {
        let (mut session, mut peer) = session();
        peer.write_all(b"*").await.unwrap();
        session.stirred().await;
        session.stirred().now_or_never().unwrap();
        let out_of_step = session.ask().await.unwrap_err();
        assert_eq!(out_of_step.failure(), ProbeFailure::Closed);
    }

    #[tokio::test]
    async fn a_peer_that_never_ends_its_answer_is_given_up() {
        let (ours, mut peer) = duplex(4096);
        let mut session = RedisSession::over(ours);
        let endless = async {
            let line = [b'x'; 4096];
            peer.write_all(b"+").await.unwrap();
            while peer.write_all(&line).await.is_ok() {}
        };
        tokio::select! {
            seen = session.ask() => assert_eq!(seen.unwrap_err().failure(), ProbeFailure::Other),
            () = endless => panic!("nobody listens any more"),
        }
    }

    #[test]
    fn who_has_no_name_logs_in_by_password_alone() {
        let login = Login {
            username: None,
            password: Some("pwd".into()),
        };
        assert_eq!(login.command(), Some(vec![&b"AUTH"[..], b"pwd"]));
        assert_eq!(Login::default().command(), None);
    }
}
