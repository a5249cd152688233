//! The open connection: questions out, replies in, and nothing spawned.

use std::{fmt, future::Future, io};

use h2::client::{self, Connection, SendRequest};
use http::{HeaderMap, Method, Request, StatusCode};
use hyper::body::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use super::message::{self, Status};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    endpoint::Endpoint,
    probe::{ProbeError, ProbeFailure, http::unexpected},
};

/// Of a reply's body. The message has seven bytes.
pub(super) const LONGEST: usize = 4096;

/// Of a reply's header fields, as HTTP/2 counts them.
const LONGEST_HEAD: u32 = 8192;

/// Of what a server has to say about an error.
const LONGEST_TEXT: usize = 200;

/// TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// An open connection of the probe [`GrpcHealth`](super::GrpcHealth).
pub struct GrpcSession {
    sender: SendRequest<Bytes>,
    /// Does all reading and writing, whenever it is polled; `None` when it has ended.
    connection: Option<Connection<Box<dyn Stream>, Bytes>>,
    /// `http://10.0.0.1:50051`
    origin: String,
}

/// What a server said that is no error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Serving,
    Unimplemented,
}

impl GrpcSession {
    pub(super) async fn dial(endpoint: &Endpoint) -> Result<Self, ProbeError> {
        let stream = connect(endpoint).await?;
        Self::over(stream, &format!("http://{}", endpoint.addr())).await
    }

    #[cfg(feature = "tls")]
    pub(super) async fn dial_tls(endpoint: &Endpoint, tls: &Tls) -> Result<Self, ProbeError> {
        let failed = |error| ProbeError::new(ProbeFailure::Tls, error);
        let name = tls.name_of(endpoint).map_err(failed)?;
        let stream = connect(endpoint).await?;
        let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::clone(&tls.config));
        let secured = connector.connect(name, stream).await;
        let stream = secured.map_err(ProbeError::securing)?;
        Self::over(stream, &format!("https://{}", endpoint.addr())).await
    }

    /// Speaks first. What the server says to that is read with its first answer.
    pub(super) async fn over(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        origin: &str,
    ) -> Result<Self, ProbeError> {
        let stream: Box<dyn Stream> = Box::new(stream);
        let mut settings = client::Builder::new();
        settings
            .enable_push(false)
            .max_header_list_size(LONGEST_HEAD);
        let shaken = settings.handshake(stream).await;
        let (sender, connection) = shaken.map_err(lost)?;
        Ok(Self {
            sender,
            connection: Some(connection),
            origin: origin.to_owned(),
        })
    }

    /// One question. After an error the session is of no more use.
    pub(super) async fn ask(&mut self, service: &str) -> Result<Reply, ProbeError> {
        if self.connection.is_none() {
            return Err(ProbeError::closed("the server ended the connection"));
        }
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}/grpc.health.v1.Health/Check", self.origin))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .header("user-agent", "headless-lb")
            .body(());
        let request = request.map_err(ProbeError::passing)?;
        let call = call(self.sender.clone(), request, service);
        let connection = &mut self.connection;
        // What came before the connection ended may be the whole reply: the call knows.
        tokio::select! {
            reply = call => reply,
            () = drive(connection) => unreachable!("it never completes"),
        }
    }

    /// Completes when the connection ends; until then, does what HTTP/2 asks for without a question.
    ///
    /// Cancel safe: the connection stays where it is.
    pub(super) async fn ended(&mut self) {
        if let Some(connection) = &mut self.connection {
            // Why it ended says nothing that the next connect will not say better.
            let _ = connection.await;
            self.connection = None;
        }
    }
}

/// Never completes, also when the connection has ended.
async fn drive(connection: &mut Option<impl Future + Unpin>) {
    if let Some(open) = connection {
        open.await;
        *connection = None;
    }
    std::future::pending().await
}

async fn connect(endpoint: &Endpoint) -> Result<TcpStream, ProbeError> {
    let stream = TcpStream::connect(endpoint.addr()).await;
    let stream = stream.map_err(ProbeError::opening)?;
    // A question is one small write.
    stream.set_nodelay(true).map_err(ProbeError::opening)?;
    Ok(stream)
}

async fn call(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    service: &str,
) -> Result<Reply, ProbeError> {
    let mut sender = sender.ready().await.map_err(lost)?;
    let (response, mut stream) = sender.send_request(request, false).map_err(lost)?;
    let question = message::request(service);
    stream.send_data(question.into(), true).map_err(lost)?;
    let (head, mut body) = response.await.map_err(lost)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(unexpected(head.status.as_u16()));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(lost)?;
        if bytes.len() + chunk.len() > LONGEST {
            return Err(ProbeError::passing("the reply is too long"));
        }
        bytes.extend_from_slice(&chunk);
    }
    // A server that has only an error to say puts it in the head.
    let trailers = body.trailers().await.map_err(lost)?;
    conclude(trailers.as_ref().unwrap_or(&head.headers), &bytes, service)
}

/// By the status of the call (grpc, `doc/statuscodes.md`) and then by its message.
fn conclude(trailers: &HeaderMap, body: &[u8], service: &str) -> Result<Reply, ProbeError> {
    let field = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    let status = field("grpc-status").and_then(|status| status.parse::<u32>().ok());
    let unknown = || ProbeError::passing(format!("the server knows no service `{service}`"));
    let status = status.ok_or_else(|| ProbeError::passing("the reply has no gRPC status"))?;
    match status {
        0 => {}
        5 => return Err(unknown()),
        12 => return Ok(Reply::Unimplemented),
        status => {
            let failure = match status {
                7 | 16 => ProbeFailure::Auth,
                _ => ProbeFailure::Other,
            };
            let said = field("grpc-message").unwrap_or_default();
            let said: String = said.chars().take(LONGEST_TEXT).collect();
            return Err(ProbeError::new(
                failure,
                format!("gRPC status {status}: {said}"),
            ));
        }
    }
    match message::response(body).map_err(ProbeError::passing)? {
        Status::Serving => Ok(Reply::Serving),
        Status::NotServing => Err(ProbeError::definitive("the server says NOT_SERVING")),
        Status::ServiceUnknown => Err(unknown()),
        Status::Unknown => Err(ProbeError::passing("the server says UNKNOWN")),
        Status::Other(status) => {
            let text = format!("the server says {status}, which is no health that is known");
            Err(ProbeError::passing(text))
        }
    }
}

/// A connection that ended, or said goodbye, proves nothing; what is no HTTP/2 does.
fn lost(error: h2::Error) -> ProbeError {
    if error.is_io() || (error.is_go_away() && error.is_remote()) {
        ProbeError::closed(io::Error::other(error))
    } else {
        ProbeError::passing(error)
    }
}

impl fmt::Debug for GrpcSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrpcSession")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}
