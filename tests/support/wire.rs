//! DNS messages by hand: a second opinion beside hickory, and the means to ask a server what it really sends.
#![allow(dead_code, reason = "every test file uses another part")]

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

pub const A: u16 = 1;
pub const SOA: u16 = 6;
pub const TXT: u16 = 16;
pub const AAAA: u16 = 28;
pub const SRV: u16 = 33;
const OPT: u16 = 41;

pub const NOERROR: u8 = 0;
pub const SERVFAIL: u8 = 2;
pub const NXDOMAIN: u8 = 3;
pub const REFUSED: u8 = 5;

/// Set in the third byte of a message.
const TRUNCATED: u8 = 0b10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

#[derive(Debug)]
pub struct Message {
    pub rcode: u8,
    pub truncated: bool,
    pub question: Question,
    pub answers: Vec<Record>,
    pub authorities: Vec<Record>,
    pub additionals: Vec<Record>,
}

/// The name is in lower case, with its dot at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub name: String,
    pub kind: u16,
}

#[derive(Debug)]
pub struct Record {
    pub name: String,
    pub ttl: u32,
    pub data: Data,
}

#[derive(Debug)]
pub enum Data {
    Address(IpAddr),
    Other,
    Soa { minimum: u32 },
    Srv { port: u16, target: String },
}

impl Message {
    /// Reads a message; none if it is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes, at: 4 };
        let counts = [reader.u16()?, reader.u16()?, reader.u16()?, reader.u16()?];
        if counts[0] != 1 {
            return None;
        }
        let question = Question {
            name: reader.name()?,
            kind: reader.u16()?,
        };
        reader.u16()?; // class
        Some(Self {
            rcode: bytes[3] & 0b1111,
            truncated: bytes[2] & TRUNCATED != 0,
            question,
            answers: reader.records(counts[1])?,
            authorities: reader.records(counts[2])?,
            additionals: reader.records(counts[3])?,
        })
    }

    /// The addresses in the answer section, in their order.
    pub fn addresses(&self) -> Vec<IpAddr> {
        addresses(&self.answers).map(|(_, ip)| ip).collect()
    }

    /// The addresses beside the answer, with their owners.
    pub fn glue(&self) -> Vec<(&str, IpAddr)> {
        addresses(&self.additionals).collect()
    }

    /// The smallest time-to-live in the answer section.
    pub fn ttl(&self) -> Option<u32> {
        self.answers.iter().map(|record| record.ttl).min()
    }
}

fn addresses(records: &[Record]) -> impl Iterator<Item = (&str, IpAddr)> {
    records.iter().filter_map(|record| match record.data {
        Data::Address(ip) => Some((record.name.as_str(), ip)),
        _ => None,
    })
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, length: usize) -> Option<&[u8]> {
        let taken = self.bytes.get(self.at..self.at + length)?;
        self.at += length;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// A name, following compression pointers; each must lead backwards, so that this ends.
    fn name(&mut self) -> Option<String> {
        let (mut name, mut at, mut end) = (String::new(), self.at, None);
        loop {
            let length = usize::from(*self.bytes.get(at)?);
            if length & 0xc0 == 0xc0 {
                let low = usize::from(*self.bytes.get(at + 1)?);
                end.get_or_insert(at + 2);
                let target = (length & 0x3f) << 8 | low;
                if target >= at {
                    return None;
                }
                at = target;
                continue;
            }
            at += 1;
            if length == 0 {
                self.at = end.unwrap_or(at);
                return Some(if name.is_empty() { ".".into() } else { name });
            }
            let label = self.bytes.get(at..at + length)?;
            name.push_str(&str::from_utf8(label).ok()?.to_ascii_lowercase());
            name.push('.');
            at += length;
        }
    }

    fn records(&mut self, count: u16) -> Option<Vec<Record>> {
        (0..count).map(|_| self.record()).collect()
    }

    fn record(&mut self) -> Option<Record> {
        let name = self.name()?;
        let (kind, _class, ttl) = (self.u16()?, self.u16()?, self.u32()?);
        let end = usize::from(self.u16()?) + self.at;
        let data = match kind {
            A => {
                let octets: [u8; 4] = self.take(4)?.try_into().ok()?;
                Data::Address(Ipv4Addr::from(octets).into())
            }
            AAAA => {
                let octets: [u8; 16] = self.take(16)?.try_into().ok()?;
                Data::Address(Ipv6Addr::from(octets).into())
            }
            SOA => {
                self.name()?;
                self.name()?;
                self.take(16)?; // serial, refresh, retry, expire
                Data::Soa {
                    minimum: self.u32()?,
                }
            }
            SRV => {
                self.take(4)?; // priority, weight
                Data::Srv {
                    port: self.u16()?,
                    target: self.name()?,
                }
            }
            _ => Data::Other,
        };
        self.at = end;
        Some(Record { name, ttl, data })
    }
}

/// A query with EDNS and a payload of 1232 bytes, as the library sends it.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = header(id, 0x0100, [1, 0, 0, 1]);
    push_question(&mut message, name, kind);
    message.push(0);
    message.extend(OPT.to_be_bytes());
    message.extend(1232_u16.to_be_bytes());
    message.extend([0; 6]);
    message
}

/// The answer of an authority to `question`: addresses that all hold for `ttl` seconds.
pub fn answer(question: &Question, rcode: u8, ttl: u32, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let count = u16::try_from(addresses.len()).expect("fewer answers than fit in a message");
    let mut message = header(0, 0x8400 | u16::from(rcode), [1, count, 0, 0]);
    push_question(&mut message, &question.name, question.kind);
    for address in addresses {
        message.extend([0xc0, 12]); // the name in the question
        message.extend(A.to_be_bytes());
        message.extend(1_u16.to_be_bytes());
        message.extend(ttl.to_be_bytes());
        message.extend(4_u16.to_be_bytes());
        message.extend(address.octets());
    }
    message
}

/// "Ask over TCP": what is left of a message when no record fits.
pub fn truncated(question: &Question) -> Vec<u8> {
    let mut message = answer(question, NOERROR, 0, &[]);
    message[2] |= TRUNCATED;
    message
}

fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let fields = [id, flags, counts[0], counts[1], counts[2], counts[3]];
    fields.into_iter().flat_map(u16::to_be_bytes).collect()
}

fn push_question(message: &mut Vec<u8>, name: &str, kind: u16) {
    for label in name.split_terminator('.') {
        message.push(u8::try_from(label.len()).expect("a label has at most 63 bytes"));
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend(1_u16.to_be_bytes());
}

/// Asks a server once, without retries; the bytes of its answer.
pub async fn ask_bytes(
    server: SocketAddr,
    name: &str,
    kind: u16,
    transport: Transport,
) -> io::Result<Vec<u8>> {
    let query = query(0x2a2a, name, kind);
    timeout(Duration::from_secs(2), async {
        match transport {
            Transport::Tcp => {
                let mut stream = TcpStream::connect(server).await?;
                write_framed(&mut stream, &query).await?;
                read_framed(&mut stream).await
            }
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").await?;
                socket.connect(server).await?;
                socket.send(&query).await?;
                let mut buffer = vec![0; 65_535];
                let length = socket.recv(&mut buffer).await?;
                buffer.truncate(length);
                Ok(buffer)
            }
        }
    })
    .await?
}

/// Asks a server once, without retries.
pub async fn ask(
    server: SocketAddr,
    name: &str,
    kind: u16,
    transport: Transport,
) -> io::Result<Message> {
    let bytes = ask_bytes(server, name, kind, transport).await?;
    Message::parse(&bytes).ok_or_else(|| io::Error::other("not a DNS message"))
}

/// Reads one message with its length in front, as on TCP.
pub async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut message = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// Writes one message with its length in front.
pub async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    let framed: Vec<u8> = length
        .to_be_bytes()
        .into_iter()
        .chain(message.iter().copied())
        .collect();
    stream.write_all(&framed).await
}
