//! What fits into a truncated answer.
//!
//! The resolver reports [`Truncated`](crate::ResolveErrorKind::Truncated) without the records. CoreDNS has by then sent as many as one TCP
//! message holds: 4,093 A records, 1,046 SRV. One plain query gets them, as an answer that may add endpoints and removes none.

use std::net::SocketAddr;

use futures_util::future::{Either, select};
use hickory_resolver::{
    net::{
        client::{Client, ClientHandle},
        runtime::TokioRuntimeProvider,
        tcp::TcpClientStream,
    },
    proto::{
        op::{Message, ResponseCode},
        rr::{DNSClass, Name, RecordType},
    },
};
use tokio::time::{Instant, timeout_at};

/// How large a service may grow, for the text of errors. Measured with CoreDNS.
pub(super) const LIMIT_A: &str = "one DNS message over TCP holds at most about 4,090 A or 2,337 AAAA records; TCP port 53 must be open";
/// The same for SRV, which brings a second record, glue, for each endpoint.
pub(super) const LIMIT_SRV: &str = "one DNS message over TCP holds about 570-740 SRV endpoints (446 over IPv6, half of both for dual stack); \
     TCP port 53 must be open; above about 440 endpoints add Dns::or_port";

/// Asks once over TCP; whatever came, if it is an answer with records.
pub(super) async fn ask(
    server: SocketAddr,
    name: &Name,
    record: RecordType,
    until: Instant,
) -> Option<Message> {
    let budget = until.saturating_duration_since(Instant::now());
    let (stream, handle) =
        TcpClientStream::new(server, None, Some(budget), TokioRuntimeProvider::default());
    let exchange = async {
        let (mut client, background) =
            Client::<TokioRuntimeProvider>::with_timeout(stream.await.ok()?, handle, budget);
        let query = client.query(name.clone(), DNSClass::IN, record);
        // The background future moves the bytes. It is driven here, so that no task outlives the question.
        match select(query, Box::pin(background)).await {
            Either::Left((response, _)) => response.ok(),
            Either::Right(((), query)) => query.await.ok(),
        }
    };
    let message = timeout_at(until, exchange).await.ok()??.into_message();
    let is_answer =
        message.metadata.response_code == ResponseCode::NoError && !message.answers.is_empty();
    is_answer.then_some(message)
}
