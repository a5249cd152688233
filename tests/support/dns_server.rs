//! A name server that says what a test scripts, over UDP and TCP on one port.
//!
//! ```ignore
//! let server = DnsServer::start().await;
//! server.answer("web.default.svc.cluster.local.", A, Reply::addresses(["10.0.0.1", "10.0.0.2"]).ttl(30));
//! let dns = Dns::headless("web.default.svc.cluster.local", 8080)?.name_servers([server.addr()]);
//! assert_eq!(server.queries().len(), 1);
//! ```
//!
//! What is not scripted is NXDOMAIN, as CoreDNS says it: with the zone's SOA record, TTL 30. A name with records of another type is NODATA.
//! The server runs in the test's own runtime, so delays obey a paused clock. Its tasks end when it is dropped.

#![expect(
    clippy::disallowed_types,
    reason = "a test's script is behind a plain lock"
)]

use std::{
    collections::HashMap,
    hash::BuildHasher as _,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record,
        rdata::{A as Ipv4, AAAA as Ipv6, CNAME, SOA, SRV as Service},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::AbortHandle,
};

pub use hickory_resolver::proto::{
    op::ResponseCode as Rcode,
    rr::RecordType::{self, A, AAAA, SRV},
};

/// A scripted name server.
pub struct DnsServer {
    addr: SocketAddr,
    script: Arc<Script>,
    tasks: [AbortHandle; 2],
}

/// One question that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Lower case, with the dot at the end.
    pub name: String,
    pub record: RecordType,
    pub transport: Transport,
    /// The largest datagram that the client takes, if it says so.
    pub edns: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// What the server says to one question.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    rcode: Option<ResponseCode>,
    answers: Vec<Data>,
    additionals: Vec<Data>,
    soa_ttl: Option<u32>,
    ttl: Option<u32>,
    delay: Duration,
    drop_first: u32,
    silent: Vec<Transport>,
    truncated: Vec<Transport>,
    raw: Option<Vec<u8>>,
    corrupt: Option<u64>,
}

/// A record to be; without an owner it belongs to the name asked for.
#[derive(Clone, Debug)]
struct Data {
    owner: Option<String>,
    data: RData,
}

#[derive(Default)]
struct Script {
    replies: Mutex<HashMap<(String, RecordType), Reply>>,
    every: Mutex<Option<Reply>>,
    refuse_tcp: Mutex<bool>,
    queries: Mutex<Vec<Query>>,
}

impl DnsServer {
    /// On 127.0.0.1.
    pub async fn start() -> Self {
        Self::start_on(Ipv4Addr::LOCALHOST).await
    }

    /// On another address of 127.0.0.0/8. The resolver keeps its penalties by IP: give two servers two addresses.
    pub async fn start_on(ip: impl Into<Ipv4Addr>) -> Self {
        Self::serve(bind(ip.into()).await)
    }

    /// On port 53 of a free address of 127.0.0.0/8, for tests that go through a resolv.conf, which names no port.
    ///
    /// Needs root, CAP_NET_BIND_SERVICE or `sysctl net.ipv4.ip_unprivileged_port_start=53`; containers have one of them.
    pub async fn start_on_port_53() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            // Test programs run side by side, and each has many tests: start far apart, and step over what is taken.
            let step = std::process::id().wrapping_mul(977) + NEXT.fetch_add(1, Relaxed);
            let addr = SocketAddr::from((Ipv4Addr::from(0x7f35_0001 + step % 0x000f_0000), 53));
            let sockets = (UdpSocket::bind(addr).await, TcpListener::bind(addr).await);
            match sockets {
                (Ok(udp), Ok(tcp)) => return Self::serve((udp, tcp)),
                (Err(error), _) | (_, Err(error)) if error.kind() != io::ErrorKind::AddrInUse => {
                    panic!("{addr}: {error} (try: sysctl net.ipv4.ip_unprivileged_port_start=53)")
                }
                _ => {}
            }
        }
    }

    /// Where another one was before: a server that restarts. Waits for the sockets of the old one to close.
    pub async fn start_again(addr: SocketAddr) -> Self {
        loop {
            if let (Ok(udp), Ok(tcp)) = (UdpSocket::bind(addr).await, TcpListener::bind(addr).await)
            {
                return Self::serve((udp, tcp));
            }
            tokio::task::yield_now().await;
        }
    }

    fn serve((udp, tcp): (UdpSocket, TcpListener)) -> Self {
        let addr = udp.local_addr().expect("bound");
        let script = Arc::<Script>::default();
        let tasks = [
            spawn(serve_udp(udp, Arc::clone(&script))),
            spawn(serve_tcp(tcp, Arc::clone(&script))),
        ];
        Self {
            addr,
            script,
            tasks,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on, says `reply` to this question.
    pub fn answer(&self, name: &str, record: RecordType, reply: Reply) {
        lock(&self.script.replies).insert((key(name), record), reply);
    }

    /// From now on, says `reply` to every question, whatever else is scripted.
    pub fn answer_everything(&self, reply: Reply) {
        *lock(&self.script.every) = Some(reply);
    }

    /// Back to the script.
    pub fn answer_as_scripted(&self) {
        *lock(&self.script.every) = None;
    }

    /// Unscripts a question.
    pub fn forget(&self, name: &str, record: RecordType) {
        lock(&self.script.replies).remove(&(key(name), record));
    }

    /// Closes every TCP connection as soon as it is open.
    pub fn refuse_tcp(&self) {
        *lock(&self.script.refuse_tcp) = true;
    }

    /// Every question so far, in order of arrival.
    pub fn queries(&self) -> Vec<Query> {
        lock(&self.script.queries).clone()
    }

    /// The names and types asked for, and forgets them.
    pub fn take_asked(&self) -> Vec<(String, RecordType)> {
        let queries = std::mem::take(&mut *lock(&self.script.queries));
        queries
            .into_iter()
            .map(|query| (query.name, query.record))
            .collect()
    }

    /// How often this question came.
    pub fn count(&self, name: &str, record: RecordType) -> usize {
        let name = key(name);
        let same = |query: &&Query| query.name == name && query.record == record;
        lock(&self.script.queries).iter().filter(same).count()
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

// Scripts read best as one chain: `Reply::addresses(["10.0.0.1"]).ttl(5).delay(SECOND)`.
impl Reply {
    /// A records for IPv4 addresses, AAAA records for IPv6 ones.
    pub fn addresses<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Self {
        Self::ips(
            addresses
                .into_iter()
                .map(|address| address.parse().expect("an IP address")),
        )
    }

    /// The same, from numbers.
    pub fn ips(ips: impl IntoIterator<Item = IpAddr>) -> Self {
        Self {
            answers: ips
                .into_iter()
                .map(|ip| Data {
                    owner: None,
                    data: ip_data(ip),
                })
                .collect(),
            ..Self::default()
        }
    }

    /// SRV records with priority 0: port and target.
    pub fn services<'a>(services: impl IntoIterator<Item = (u16, &'a str)>) -> Self {
        let mut reply = Self::default();
        for (port, target) in services {
            reply = reply.service(0, port, target);
        }
        reply
    }

    /// NOERROR without records, with the zone's SOA record.
    pub fn nodata() -> Self {
        Self::default().soa(30)
    }

    /// With the zone's SOA record.
    pub fn nxdomain() -> Self {
        Self::rcode(ResponseCode::NXDomain).soa(30)
    }

    /// An error code without records.
    pub fn rcode(rcode: ResponseCode) -> Self {
        Self {
            rcode: Some(rcode),
            ..Self::default()
        }
    }

    /// No reply at all.
    pub fn silence() -> Self {
        Self::default()
            .silent_on(Transport::Udp)
            .silent_on(Transport::Tcp)
    }

    /// These bytes, with the question's id in the first two.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            raw: Some(bytes.into()),
            ..Self::default()
        }
    }

    /// One more SRV record.
    pub fn service(mut self, priority: u16, port: u16, target: &str) -> Self {
        let srv = Service::new(priority, 100, port, name(target));
        self.answers.push(Data {
            owner: None,
            data: RData::SRV(srv),
        });
        self
    }

    /// One more A or AAAA record in the answer, under another owner.
    pub fn owned_by(mut self, owner: &str, address: &str) -> Self {
        let data = ip_data(address.parse().expect("an IP address"));
        self.answers.push(Data {
            owner: Some(owner.to_owned()),
            data,
        });
        self
    }

    /// A CNAME record in the answer.
    pub fn alias(mut self, owner: &str, target: &str) -> Self {
        let data = RData::CNAME(CNAME(name(target)));
        self.answers.push(Data {
            owner: Some(owner.to_owned()),
            data,
        });
        self
    }

    /// One more SRV record, under another owner.
    pub fn service_of(mut self, owner: &str, port: u16, target: &str) -> Self {
        let data = RData::SRV(Service::new(0, 100, port, name(target)));
        self.answers.push(Data {
            owner: Some(owner.to_owned()),
            data,
        });
        self
    }

    /// An A or AAAA record in the additional section.
    pub fn glue(mut self, owner: &str, address: &str) -> Self {
        let data = ip_data(address.parse().expect("an IP address"));
        self.additionals.push(Data {
            owner: Some(owner.to_owned()),
            data,
        });
        self
    }

    /// Of every record; 30 if not said.
    pub fn ttl(mut self, ttl: u32) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// With an SOA record whose TTL and MINIMUM are `ttl`, as CoreDNS sends it: the negative TTL.
    pub fn soa(mut self, ttl: u32) -> Self {
        self.soa_ttl = Some(ttl);
        self
    }

    /// Without SOA record.
    pub fn without_soa(mut self) -> Self {
        self.soa_ttl = None;
        self
    }

    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Loses the first `count` datagrams.
    pub fn drop_first(mut self, count: u32) -> Self {
        self.drop_first = count;
        self
    }

    pub fn silent_on(mut self, transport: Transport) -> Self {
        self.silent.push(transport);
        self
    }

    /// Sets TC. Without this the server sets it by itself when a datagram would be too large, and drops records that do not fit.
    pub fn truncated_on(mut self, transport: Transport) -> Self {
        self.truncated.push(transport);
        self
    }

    /// Flips a few bits behind the id, drawn from `seed`.
    pub fn corrupt(mut self, seed: u64) -> Self {
        self.corrupt = Some(seed);
        self
    }

    fn bytes(&self, query: &Message, question: &Question, transport: Transport) -> Vec<u8> {
        let id = query.metadata.id;
        if let Some(raw) = &self.raw {
            let mut raw = raw.clone();
            raw.iter_mut()
                .zip(id.to_be_bytes())
                .for_each(|(byte, id)| *byte = id);
            return raw;
        }
        let mut message = Message::new(id, MessageType::Response, OpCode::Query);
        message.metadata.recursion_desired = query.metadata.recursion_desired;
        message.metadata.authoritative = true;
        message.metadata.response_code = self.rcode.unwrap_or(ResponseCode::NoError);
        message.metadata.truncation = self.truncated.contains(&transport);
        message.add_query(question.clone());
        let ttl = self.ttl.unwrap_or(30);
        let record = |data: &Data| {
            let owner = data
                .owner
                .as_deref()
                .map_or_else(|| question.name().clone(), name);
            Record::from_rdata(owner, ttl, data.data.clone())
        };
        message.add_answers(self.answers.iter().map(record));
        message.add_additionals(self.additionals.iter().map(record));
        if let Some(ttl) = self.soa_ttl {
            let zone = name("cluster.local.");
            let soa = SOA::new(
                name("ns.dns.cluster.local."),
                zone.clone(),
                1,
                7200,
                1800,
                86400,
                ttl,
            );
            message.add_authority(Record::from_rdata(zone, ttl, RData::SOA(soa)));
        }
        let limit = match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => query
                .edns
                .as_ref()
                .map_or(512, |edns| edns.max_payload().into()),
        };
        if let Some(edns) = &query.edns {
            message.set_edns(edns.clone());
        }
        let mut bytes = encode(message, limit);
        if let Some(seed) = self.corrupt {
            corrupt(&mut bytes[2..], seed);
        }
        bytes
    }
}

/// As CoreDNS: TC and as many records as fit, glue dropped first.
fn encode(mut message: Message, limit: usize) -> Vec<u8> {
    loop {
        // Too long for any message is an error of the encoder.
        let bytes = message.to_vec().ok();
        let length = bytes.as_ref().map_or(2 * limit, Vec::len);
        if let Some(bytes) = bytes
            && length <= limit
        {
            return bytes;
        }
        message.metadata.truncation = true;
        if message.additionals.is_empty() {
            let fitting = message.answers.len() * limit / length;
            message.answers.truncate(fitting * 19 / 20);
        } else {
            message.additionals.clear();
        }
    }
}

fn corrupt(bytes: &mut [u8], seed: u64) {
    let hash = RandomStateless::default();
    for n in 0..=(seed % 4) {
        let draw = usize::try_from(hash.hash_one((seed, n)) >> 1).expect("63 bits");
        bytes[draw / 8 % bytes.len()] ^= 1 << (draw % 8);
    }
}

/// The same for the same seed.
type RandomStateless = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

impl Script {
    /// What to say, or nothing; logs the question.
    fn reply(&self, bytes: &[u8], transport: Transport) -> Option<(Duration, Vec<u8>)> {
        let query = Message::from_vec(bytes).ok()?;
        let question = query.queries.first()?.clone();
        let name = key(&question.name().to_ascii());
        let record = question.query_type();
        lock(&self.queries).push(Query {
            name: name.clone(),
            record,
            transport,
            edns: query.edns.as_ref().map(|edns| edns.max_payload()),
        });
        let reply = self.scripted(&name, record, transport)?;
        Some((reply.delay, reply.bytes(&query, &question, transport)))
    }

    fn scripted(&self, name: &str, record: RecordType, transport: Transport) -> Option<Reply> {
        let mut every = lock(&self.every);
        let mut replies = lock(&self.replies);
        let exists = replies.keys().any(|(known, _)| known == name);
        let scripted = match every.as_mut() {
            Some(every) => Some(every),
            None => replies.get_mut(&(name.to_owned(), record)),
        };
        let Some(reply) = scripted else {
            return Some(if exists {
                Reply::nodata()
            } else {
                Reply::nxdomain()
            });
        };
        if transport == Transport::Udp && reply.drop_first > 0 {
            reply.drop_first -= 1;
            return None;
        }
        (!reply.silent.contains(&transport)).then(|| reply.clone())
    }
}

async fn bind(ip: Ipv4Addr) -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind((ip, 0)).await.expect("a free UDP port");
        let addr = udp.local_addr().expect("bound");
        // The same number may be taken for TCP.
        if let Ok(tcp) = TcpListener::bind(addr).await {
            return (udp, tcp);
        }
    }
}

async fn serve_udp(socket: UdpSocket, script: Arc<Script>) {
    let socket = Arc::new(socket);
    let mut buffer = vec![0; 65_535];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let Some((delay, bytes)) = script.reply(&buffer[..length], Transport::Udp) else {
            continue;
        };
        let socket = Arc::clone(&socket);
        // A task of its own: a slow reply holds up nobody.
        spawn(async move {
            sleep(delay).await;
            let _ = socket.send_to(&bytes, client).await;
        });
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Script>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        if *lock(&script.refuse_tcp) {
            continue;
        }
        connections.spawn(serve_connection(stream, Arc::clone(&script)));
    }
}

async fn serve_connection(mut stream: TcpStream, script: Arc<Script>) -> io::Result<()> {
    loop {
        let mut query = vec![0; stream.read_u16().await?.into()];
        stream.read_exact(&mut query).await?;
        if let Some((delay, bytes)) = script.reply(&query, Transport::Tcp) {
            sleep(delay).await;
            let length = u16::try_from(bytes.len()).expect("encoded to fit");
            // In one write: two would wait 40 ms for the acknowledgement between them.
            let bytes = [&length.to_be_bytes()[..], &bytes].concat();
            stream.write_all(&bytes).await?;
        }
    }
}

/// A zero sleep would still wait for the next tick of the clock.
async fn sleep(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the server of a test is a task of the test"
)]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
    tokio::spawn(task).abort_handle()
}

fn ip_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(Ipv4(ip)),
        IpAddr::V6(ip) => RData::AAAA(Ipv6(ip)),
    }
}

fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).expect("a name");
    name.set_fqdn(true);
    name
}

fn key(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.').to_ascii_lowercase())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no test panics inside")
}
