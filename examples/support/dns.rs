//! A name server that answers as cluster DNS does, on UDP and TCP of one free port.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use async_trait::async_trait;
use headless_lb::Address;
use hickory_server::{
    Server,
    net::runtime::Time,
    proto::op::{Header, HeaderCounts, Metadata, ResponseCode},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponseBuilder,
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::watch,
};

use super::{
    Result,
    zone::{Answer, Zone},
};

/// The TTL that kubeadm configures. It does not count down: every answer is fresh, so waiting it
/// out only makes a client stale.
const KUBEADM_TTL: u32 = 30;

/// Cluster DNS for `*.svc.cluster.local`. Dropping it stops the server.
pub(crate) struct ClusterDns {
    addr: SocketAddr,
    zone: watch::Sender<Zone>,
    _server: Server<Handler>,
}

impl ClusterDns {
    /// Starts on a free port of 127.0.0.1, with the TTL of kubeadm and no service.
    pub(crate) async fn start() -> Result<Self> {
        let (udp, tcp) = bind().await?;
        let addr = udp.local_addr()?;
        let (zone, known) = watch::channel(Zone {
            ttl: KUBEADM_TTL,
            ready: HashMap::new(),
        });
        let mut server = Server::new(Handler { zone: known });
        server.register_socket(udp);
        server.register_listener(tcp, Duration::from_secs(10), 1024);
        Ok(Self {
            addr,
            zone,
            _server: server,
        })
    }

    /// The TTL of all records from now on.
    pub(crate) fn ttl(self, seconds: u32) -> Self {
        self.zone.send_modify(|zone| zone.ttl = seconds);
        self
    }

    /// Where the server listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The service `name.namespace`. It needs no declaration: cluster DNS does not tell "no ready
    /// pod" from "no such service".
    pub(crate) fn service(&self, name: &str) -> Service<'_> {
        Service {
            zone: &self.zone,
            name: name.to_owned(),
        }
    }
}

/// The records of one service.
pub(crate) struct Service<'a> {
    zone: &'a watch::Sender<Zone>,
    name: String,
}

impl Service<'_> {
    /// From now on these pods are ready, and no others. A named address has a hostname, as the pods
    /// of a StatefulSet do.
    pub(crate) fn ready(&self, pods: impl IntoIterator<Item = impl Into<Address>>) {
        let pods = pods.into_iter().map(Into::into).collect();
        self.zone.send_modify(|zone| {
            zone.ready.insert(self.name.clone(), pods);
        });
    }
}

struct Handler {
    zone: watch::Receiver<Zone>,
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut responder: R,
    ) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = true;
        let answer = match request.request_info() {
            Ok(info) => {
                let (name, kind) = (info.query.original().name(), info.query.query_type());
                self.zone.borrow().answer(name, kind)
            }
            Err(_) => Ok(Answer {
                code: ResponseCode::FormErr,
                ..Answer::default()
            }),
        };
        let answer = answer.unwrap_or_else(|_| Answer {
            code: ResponseCode::ServFail,
            ..Answer::default()
        });
        metadata.response_code = answer.code;

        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &request.edns {
            builder.edns(edns);
        }
        let response = builder.build(
            metadata,
            &answer.answers,
            [],
            &answer.soa,
            &answer.additionals,
        );
        // A client that went away before its answer is no failure of the server.
        responder.send_response(response).await.unwrap_or_else(|_| {
            ResponseInfo::from(Header {
                metadata,
                counts: HeaderCounts::default(),
            })
        })
    }
}

/// The port is chosen by the first bind; the second fails if somebody else has the same number on
/// the other transport.
async fn bind() -> Result<(UdpSocket, TcpListener)> {
    const TRIES: u32 = 16;
    let mut last = None;
    for _ in 0..TRIES {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(format!("no port of 127.0.0.1 is free on both UDP and TCP: {last:?}").into())
}
