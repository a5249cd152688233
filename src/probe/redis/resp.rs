//! RESP2, as far as the probe needs it: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

/// The longest reply that is read: `ROLE` and `INFO replication` of a master with some 700 replicas.
pub(super) const LONGEST: usize = 64 * 1024;

/// `ROLE` is an array of arrays.
const DEEPEST: u8 = 3;

/// What a server says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reply {
    Array(Vec<Self>),
    Error(String),
    Integer(i64),
    Nothing,
    Text(String),
}

/// This is not RESP2, or more than is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Malformed;

/// The reply at the start of `bytes` and its length; `None` if it is not whole yet.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Reply, usize)>, Malformed> {
    let mut reader = Reader { bytes, at: 0 };
    match reader.reply(DEEPEST) {
        Ok(reply) => Ok(Some((reply, reader.at))),
        Err(Stop::Malformed) => Err(Malformed),
        Err(Stop::Short) if bytes.len() >= LONGEST => Err(Malformed),
        Err(Stop::Short) => Ok(None),
    }
}

/// A command, as the array of strings that it is.
pub(super) fn write(command: &[&[u8]], to: &mut Vec<u8>) {
    to.extend(format!("*{}\r\n", command.len()).bytes());
    for word in command {
        to.extend(format!("${}\r\n", word.len()).bytes());
        to.extend(*word);
        to.extend(b"\r\n");
    }
}

/// Why there is no reply.
enum Stop {
    Malformed,
    Short,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn reply(&mut self, depth: u8) -> Result<Reply, Stop> {
        let line = self.line()?;
        let (&kind, rest) = line.split_first().ok_or(Stop::Malformed)?;
        Ok(match kind {
            b'+' => Reply::Text(text(rest)),
            b'-' => Reply::Error(text(rest)),
            b':' => Reply::Integer(number(rest)?),
            b'$' => match length(rest)? {
                Some(length) => Reply::Text(text(self.string(length)?)),
                None => Reply::Nothing,
            },
            b'*' => match length(rest)? {
                Some(length) => Reply::Array(self.array(length, depth)?),
                None => Reply::Nothing,
            },
            _ => return Err(Stop::Malformed),
        })
    }

    /// Without room made in advance: the length is only what the peer claims.
    fn array(&mut self, length: usize, depth: u8) -> Result<Vec<Reply>, Stop> {
        let depth = depth.checked_sub(1).ok_or(Stop::Malformed)?;
        let mut replies = Vec::new();
        for _ in 0..length {
            replies.push(self.reply(depth)?);
        }
        Ok(replies)
    }

    fn string(&mut self, length: usize) -> Result<&'a [u8], Stop> {
        let (start, end) = (self.at, self.at + length);
        if let Some(tail) = self.bytes.get(end..end + 2)
            && tail != b"\r\n"
        {
            return Err(Stop::Malformed);
        }
        let string = self.bytes.get(start..end).ok_or(Stop::Short)?;
        self.at = end + 2;
        if self.at > self.bytes.len() {
            return Err(Stop::Short);
        }
        Ok(string)
    }

    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let line = &rest[..end.ok_or(Stop::Short)?];
        self.at += line.len() + 2;
        Ok(line)
    }
}

/// Whatever a server says is only looked at: a wrong byte in it spoils nothing else.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(digits: &[u8]) -> Result<i64, Stop> {
    let digits = std::str::from_utf8(digits).map_err(|_| Stop::Malformed)?;
    digits.parse().map_err(|_| Stop::Malformed)
}

/// -1 is no value at all, which is not the empty one.
fn length(digits: &[u8]) -> Result<Option<usize>, Stop> {
    match number(digits)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= LONGEST => Ok(Some(length)),
            _ => Err(Stop::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A master with a replica, as Redis 7.0 says it.
    const ROLE: &[u8] = b"*3\r\n$6\r\nmaster\r\n:3129659\r\n*1\r\n*3\r\n$9\r\n127.0.0.1\r\n$4\r\n9001\r\n$7\r\n3129242\r\n";

    fn string(text: &str) -> Reply {
        Reply::Text(text.to_owned())
    }

    #[test]
    fn every_kind_of_reply_is_read() {
        let replica = ["127.0.0.1", "9001", "3129242"].map(string).to_vec();
        let role = vec![
            string("master"),
            Reply::Integer(3_129_659),
            Reply::Array(vec![Reply::Array(replica)]),
        ];
        let replies: [(&[u8], Reply); 8] = [
            (ROLE, Reply::Array(role)),
            (b"+OK\r\n", string("OK")),
            (b"-NOAUTH no\r\n", Reply::Error("NOAUTH no".to_owned())),
            (b":-1\r\n", Reply::Integer(-1)),
            (b"$0\r\n\r\n", string("")),
            (b"$4\r\na\r\nb\r\n", string("a\r\nb")),
            (b"$-1\r\n", Reply::Nothing),
            (b"*0\r\n", Reply::Array(Vec::new())),
        ];
        for (bytes, reply) in replies {
            assert_eq!(read(bytes), Ok(Some((reply, bytes.len()))));
        }
    }

    #[test]
    fn a_reply_is_read_when_its_last_byte_is_there_and_not_before() {
        let two = [ROLE, b"+OK\r\n"].concat();
        for end in 0..ROLE.len() {
            assert_eq!(read(&two[..end]), Ok(None), "after {end} bytes");
        }
        for end in ROLE.len()..two.len() {
            let (_, length) = read(&two[..end]).unwrap().unwrap();
            assert_eq!(length, ROLE.len());
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let long = format!("+{}", "x".repeat(LONGEST));
        let large = format!("${}\r\n", LONGEST + 1);
        let endless = format!("*{LONGEST}\r\n").repeat(2) + &":1\r\n".repeat(LONGEST / 4);
        let bad: [&[u8]; 10] = [
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\r\n",
            b":one\r\n",
            b"$-2\r\n",
            b"*-2\r\n",
            b"$2\r\nabcd\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
            long.as_bytes(),
            large.as_bytes(),
            endless.as_bytes(),
        ];
        for bytes in bad {
            assert_eq!(
                read(bytes),
                Err(Malformed),
                "{}",
                text(&bytes[..9.min(bytes.len())])
            );
        }
    }

    #[test]
    fn a_command_may_have_any_bytes_in_it() {
        let mut bytes = Vec::new();
        write(&[b"AUTH", b"p w\r\n\xff"], &mut bytes);
        assert_eq!(bytes, b"*2\r\n$4\r\nAUTH\r\n$6\r\np w\r\n\xff\r\n");
    }
}
