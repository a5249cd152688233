//! A name server of bytes: what it says was written down before, and only the message ID is made to fit.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
};

use crate::wire::{Message, Question, Transport, read_framed, write_framed};

/// What to say to a question; silence if none.
type Script = dyn Fn(&Question, Transport) -> Option<Vec<u8>> + Send + Sync;

/// Serves on UDP and TCP at one loopback port until it is dropped.
#[derive(Debug)]
pub struct Replay {
    address: SocketAddr,
    _tasks: JoinSet<io::Result<()>>,
}

impl Replay {
    pub async fn start(
        script: impl Fn(&Question, Transport) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let (udp, tcp) = bind_both().await.expect("a free port on 127.0.0.1");
        let address = udp.local_addr().expect("a bound socket has an address");
        let script: Arc<Script> = Arc::new(script);
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&script)));
        tasks.spawn(serve_tcp(tcp, script));
        Self {
            address,
            _tasks: tasks,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The same free port for UDP and for TCP: the system picks one for UDP, and somebody may have it on TCP.
async fn bind_both() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..20 {
        let udp = UdpSocket::bind("127.0.0.1:0").await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no attempt was made")))
}

async fn serve_udp(socket: UdpSocket, script: Arc<Script>) -> io::Result<()> {
    let mut buffer = vec![0; 65_535];
    loop {
        let (length, client) = socket.recv_from(&mut buffer).await?;
        if let Some(reply) = reply(&buffer[..length], Transport::Udp, &*script) {
            socket.send_to(&reply, client).await?;
        }
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Script>) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        connections.spawn(serve_connection(stream, Arc::clone(&script)));
    }
}

/// Ends, with an error that nobody needs, when the client closes.
async fn serve_connection(mut stream: TcpStream, script: Arc<Script>) -> io::Result<()> {
    loop {
        let query = read_framed(&mut stream).await?;
        if let Some(reply) = reply(&query, Transport::Tcp, &*script) {
            write_framed(&mut stream, &reply).await?;
        }
    }
}

fn reply(query: &[u8], transport: Transport, script: &Script) -> Option<Vec<u8>> {
    let mut reply = script(&Message::parse(query)?.question, transport)?;
    reply[..2].copy_from_slice(&query[..2]);
    Some(reply)
}
