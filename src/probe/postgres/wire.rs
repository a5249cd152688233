//! Messages of PostgreSQL's protocol 3.0: taken out of a stream of bytes, and made.
//!
//! Formats are those of the manual, "Message Formats". What a server sends is not trusted: nothing it says
//! makes us allocate more than [`LONGEST`], and what does not parse is an error with a name.

use std::{error::Error, fmt};

/// The longest message that is taken. What a probe asks for has a few hundred bytes; error texts are longer.
pub(super) const LONGEST: usize = 64 * 1024;

/// A login's replies have about 400 bytes together.
const ONE_READ: usize = 1024;

/// Protocol 3.0, which every server since 7.4 speaks.
const VERSION: i32 = 3 << 16;
/// Takes the place of a version: the client wants TLS.
#[cfg(any(test, feature = "tls"))]
const SSL_REQUEST: i32 = 1234 << 16 | 5679;

/// The peer does not speak the protocol as we know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no PostgreSQL server, or a broken one: {}", self.0)
    }
}

impl Error for Malformed {}

/// A message of the server: its type and what follows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Vec<u8>,
}

/// Bytes that came and were not taken yet. They outlive whoever waited for them.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    /// So many of them are taken. They are dropped all at once, before more come: a server that says much in small
    /// messages must not make us move the rest for each.
    taken: usize,
}

impl Inbox {
    /// Where to put what comes.
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.reserve(ONE_READ);
        &mut self.bytes
    }

    /// The next whole message, if it has come.
    pub(super) fn take(&mut self) -> Result<Option<Message>, Malformed> {
        let bytes = &self.bytes[self.taken..];
        let Some((&[tag, a, b, c, d], rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        // The length counts itself.
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(length) = length.checked_sub(4) else {
            return Err(Malformed("a message shorter than its length"));
        };
        if length > LONGEST {
            return Err(Malformed("a message that is too long"));
        }
        let Some(body) = rest.get(..length) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.taken += 5 + length;
        Ok(Some(Message { tag, body }))
    }

    /// The text of an error in the format of protocol 2. A server that cannot start a process for the
    /// connection still answers so, since it has not read which protocol we speak.
    pub(super) fn ancient_error(&self) -> Option<&[u8]> {
        let (_, text) = self.bytes[self.taken..]
            .split_first()
            .filter(|(tag, _)| **tag == b'E')?;
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\n');
        let text = text.split(|&byte| byte == 0).next()?;
        (text.len() >= 4 && text.iter().all(is_text)).then_some(text)
    }
}

/// Reads the parts of a message, front to back. `None`: the message ends too early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    pub(super) fn short(&mut self) -> Option<i16> {
        self.chunk().map(i16::from_be_bytes)
    }

    pub(super) fn int(&mut self) -> Option<i32> {
        self.chunk().map(i32::from_be_bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Bytes up to a zero, which is taken too.
    pub(super) fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.0.iter().position(|&byte| byte == 0)?;
        let text = self.take(length);
        self.0 = &self.0[1..];
        text
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.0
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

/// A column of a row, in text format; `None` is NULL.
pub(super) type Column = Option<String>;

/// The columns of a `DataRow`.
pub(super) fn row(body: &[u8]) -> Result<Vec<Column>, Malformed> {
    columns(Reader(body)).ok_or(Malformed("a row that ends early"))
}

fn columns(mut reader: Reader<'_>) -> Option<Vec<Column>> {
    let count = reader.short()?;
    let column = |_| match usize::try_from(reader.int()?) {
        Ok(length) => {
            let text = reader.take(length)?;
            Some(Some(String::from_utf8_lossy(text).into_owned()))
        }
        Err(_) => Some(None), // NULL
    };
    (0..count).map(column).collect()
}

/// Asks for TLS.
#[cfg(any(test, feature = "tls"))]
pub(super) fn ssl_request() -> Vec<u8> {
    lengthened(&[], |body| body.extend(SSL_REQUEST.to_be_bytes()))
}

/// The first message of a connection: who we are, and settings. A text with a zero in it cannot be said:
/// `None`.
pub(super) fn startup(settings: &[(&str, &str)]) -> Option<Vec<u8>> {
    let texts = || settings.iter().flat_map(|(name, value)| [name, value]);
    if texts().any(|text| text.contains('\0')) {
        return None;
    }
    Some(lengthened(&[], |body| {
        body.extend(VERSION.to_be_bytes());
        texts().for_each(|text| push_text(body, text));
        body.push(0);
    }))
}

/// A password, or its hash.
pub(super) fn password(text: &str) -> Vec<u8> {
    lengthened(b"p", |body| push_text(body, text))
}

/// The first message of a SASL exchange.
pub(super) fn sasl_first(mechanism: &str, data: &str) -> Vec<u8> {
    lengthened(b"p", |body| {
        push_text(body, mechanism);
        push_length(body, data.len());
        body.extend(data.as_bytes());
    })
}

/// A later message of a SASL exchange.
pub(super) fn sasl_next(data: &str) -> Vec<u8> {
    lengthened(b"p", |body| body.extend(data.as_bytes()))
}

/// Ends a round: the server finishes what it does, and says that it is ready.
pub(super) fn sync() -> Vec<u8> {
    lengthened(b"S", |_| ())
}

/// Gives a statement this name; empty: until the next one without a name.
pub(super) fn parse(name: &str, statement: &str) -> Vec<u8> {
    lengthened(b"P", |body| {
        push_text(body, name);
        push_text(body, statement);
        body.extend(0_i16.to_be_bytes()); // parameter types
    })
}

/// Runs a statement without parameters; results as text.
pub(super) fn execute(name: &str) -> Vec<u8> {
    let mut messages = lengthened(b"B", |body| {
        push_text(body, ""); // portal
        push_text(body, name);
        body.extend([0; 6]); // no formats, no parameters, no result formats: three counts
    });
    messages.extend(lengthened(b"E", |body| {
        push_text(body, "");
        body.extend(0_i32.to_be_bytes()); // all rows
    }));
    messages
}

/// The tag, the length, the body.
fn lengthened(tag: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut message = tag.to_vec();
    message.extend([0; 4]);
    write(&mut message);
    let mut length = Vec::with_capacity(4);
    push_length(&mut length, message.len() - tag.len());
    message[tag.len()..][..4].copy_from_slice(&length);
    message
}

fn push_text(body: &mut Vec<u8>, text: &str) {
    body.extend(text.as_bytes());
    body.push(0);
}

/// Our messages are short: a password is the longest part.
fn push_length(body: &mut Vec<u8>, length: usize) {
    body.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inbox(bytes: &[u8]) -> Inbox {
        let mut inbox = Inbox::default();
        inbox.room().extend(bytes);
        inbox
    }

    #[test]
    fn a_message_is_taken_when_its_last_byte_has_come() {
        let bytes = b"Z\0\0\0\x05IS\0\0\0\x04";
        for split in 0..bytes.len() {
            let mut inbox = inbox(&bytes[..split]);
            let early = inbox.take().unwrap();
            assert_eq!(early.is_some(), split >= 6, "{split}");
            inbox.room().extend(&bytes[split..]);
            let first = early.or_else(|| inbox.take().unwrap()).unwrap();
            assert_eq!((first.tag, &*first.body), (b'Z', &b"I"[..]));
            let second = inbox.take().unwrap().unwrap();
            assert_eq!((second.tag, &*second.body), (b'S', &b""[..]));
            assert_eq!(inbox.take(), Ok(None));
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_an_error_before_the_bytes_come() {
        let too_long = LONGEST as u32 + 5;
        for length in [0, 3, too_long, i32::MAX as u32, u32::MAX] {
            let mut bytes = b"D".to_vec();
            bytes.extend(length.to_be_bytes());
            assert!(inbox(&bytes).take().is_err(), "{length}");
        }
        let mut longest = b"D".to_vec();
        longest.extend((LONGEST as u32 + 4).to_be_bytes());
        assert_eq!(inbox(&longest).take(), Ok(None));
    }

    #[test]
    fn a_row_is_read_with_its_nulls_and_refused_when_cut() {
        let body = b"\0\x02\0\0\0\x01t\xff\xff\xff\xff";
        assert_eq!(row(body), Ok(vec![Some("t".to_owned()), None]));
        for end in 0..body.len() {
            assert!(row(&body[..end]).is_err(), "{end}");
        }
        let endless = b"\0\x01\x7f\xff\xff\xff";
        assert!(row(endless).is_err());
    }

    #[test]
    fn messages_are_as_the_manual_has_them() {
        assert_eq!(sync(), b"S\0\0\0\x04");
        assert_eq!(ssl_request(), b"\0\0\0\x08\x04\xd2\x16\x2f");
        let startup = startup(&[("user", "u")]).unwrap();
        assert_eq!(startup, b"\0\0\0\x10\0\x03\0\0user\0u\0\0");
        assert_eq!(password("ab"), b"p\0\0\0\x07ab\0");
        assert_eq!(sasl_first("X", "n,,"), b"p\0\0\0\x0dX\0\0\0\0\x03n,,");
        assert_eq!(sasl_next("c="), b"p\0\0\0\x06c=");
        assert_eq!(parse("n", "q"), b"P\0\0\0\x0an\0q\0\0\0");
        let execute = execute("n");
        assert_eq!(
            execute,
            b"B\0\0\0\x0d\0n\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0"
        );
    }

    #[test]
    fn a_text_with_a_zero_is_not_said() {
        assert_eq!(startup(&[("user", "a\0database\0b")]), None);
    }

    #[test]
    fn an_error_in_the_format_of_protocol_two_is_found() {
        let text = b"could not fork new process for connection: Cannot allocate memory\n";
        let mut bytes = b"E".to_vec();
        bytes.extend(text);
        bytes.push(0);
        let mut refused = inbox(&bytes);
        assert!(refused.take().is_err());
        assert_eq!(refused.ancient_error(), Some(&text[..]));
        assert_eq!(inbox(b"E\xff\xff\xff\xff\0").ancient_error(), None);
        assert_eq!(inbox(b"HTTP/1.1 400").ancient_error(), None);
    }
}
