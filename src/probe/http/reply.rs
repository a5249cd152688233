//! Reads the reply to an HTTP request, as far as it came.

use std::str;

/// A status line and a few headers. Servers refuse heads of requests beyond 8 KiB (nginx, Apache); one of a
/// reply that is twice as long comes from no status page.
pub(super) const LONGEST_HEAD: usize = 16 * 1024;

/// A Patroni with 100 standbys says 20 KiB.
pub(super) const LONGEST_BODY: usize = 64 * 1024;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::probe) struct Reply {
    pub(in crate::probe) status: u16,
    /// Ends at [`LONGEST_BODY`]: a cut page is not JSON any more, and a status needs none.
    pub(in crate::probe) body: Vec<u8>,
}

impl Reply {
    /// The reply if these bytes are all of it: `None` if more is to come. `ended` says that nothing will.
    pub(super) fn read(bytes: &[u8], ended: bool) -> Result<Option<Self>, &'static str> {
        let Some(Head {
            status,
            lines,
            body,
        }) = Head::read(bytes, ended)?
        else {
            return Ok(None);
        };
        let wanted = length_of(lines)?.map(|length| length.min(LONGEST_BODY));
        // Without a length the end of the connection ends the body (RFC 1945, 7.2.2).
        let is_whole = match wanted {
            Some(length) => body.len() >= length,
            None => ended || body.len() >= LONGEST_BODY,
        };
        if !is_whole && ended {
            return Err("the reply ended in its body");
        }
        let length = wanted.unwrap_or(LONGEST_BODY).min(body.len());
        Ok(is_whole.then(|| Self {
            status,
            body: body[..length].to_vec(),
        }))
    }

    /// The status, once the head of the reply is whole. Replies that only say that another follows are passed over
    /// (RFC 9110, 15.2).
    pub(super) fn status(mut bytes: &[u8], ended: bool) -> Result<Option<u16>, &'static str> {
        while let Some(head) = Head::read(bytes, ended)? {
            if !(100..200).contains(&head.status) {
                return Ok(Some(head.status));
            }
            bytes = head.body;
        }
        Ok(None)
    }
}

/// The head of a reply, and what came behind it.
struct Head<'a> {
    status: u16,
    /// But for the first.
    lines: str::Lines<'a>,
    body: &'a [u8],
}

impl<'a> Head<'a> {
    fn read(bytes: &'a [u8], ended: bool) -> Result<Option<Self>, &'static str> {
        const PROTOCOL: &[u8] = b"HTTP/1.";
        if !bytes
            .iter()
            .zip(PROTOCOL)
            .all(|(byte, letter)| byte == letter)
        {
            return Err("the reply is not HTTP");
        }
        let Some((head, body)) = split_head(bytes) else {
            return match ended {
                true => Err("the reply ended in its head"),
                false if bytes.len() > LONGEST_HEAD => Err("the reply's head has no end"),
                false => Ok(None),
            };
        };
        let head = str::from_utf8(head).map_err(|_| "the reply's head is not text")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(status_of);
        let status = status.ok_or("the reply has no status")?;
        Ok(Some(Self {
            status,
            lines,
            body,
        }))
    }
}

/// At the first empty line, be the lines ended by CR LF or, as servers in shell scripts do, by LF alone.
fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut line = 0;
    for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        if matches!(&bytes[line..at], b"" | b"\r") {
            return Some((&bytes[..line], &bytes[at + 1..]));
        }
        line = at + 1;
        if line > LONGEST_HEAD {
            return None;
        }
    }
    None
}

/// `HTTP/1.0 200 OK`; the words at the end are for people, and may be missing.
fn status_of(line: &str) -> Option<u16> {
    let status = line.split_ascii_whitespace().nth(1)?;
    (status.len() == 3).then(|| status.parse().ok())?
}

fn length_of<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Option<usize>, &'static str> {
    let mut found = None;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse().ok();
            if length.is_none() || found.is_some_and(|other| Some(other) != length) {
                return Err("the reply's length is no number");
            }
            found = length;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str) -> Reply {
        Reply {
            status,
            body: body.into(),
        }
    }

    #[test]
    fn a_reply_with_a_length_is_whole_at_its_last_byte_and_not_before() {
        let text = b"HTTP/1.1 200 OK\r\nServer: x\r\nCONTENT-length: 4 \r\n\r\nbody";
        for end in 0..text.len() {
            assert_eq!(Reply::read(&text[..end], false), Ok(None), "{end}");
            assert!(Reply::read(&text[..end], true).is_err(), "{end}");
        }
        for ended in [false, true] {
            assert_eq!(Reply::read(text, ended), Ok(Some(reply(200, "body"))));
        }
        let more = [text, &b" and more"[..]].concat();
        assert_eq!(Reply::read(&more, false), Ok(Some(reply(200, "body"))));
    }

    #[test]
    fn a_reply_without_a_length_is_whole_at_the_end_of_the_connection() {
        let text = b"HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\n\r\n{}";
        for end in 0..=text.len() {
            assert_eq!(Reply::read(&text[..end], false), Ok(None), "{end}");
        }
        assert_eq!(Reply::read(text, true), Ok(Some(reply(503, "{}"))));
        let head = &text[..text.len() - 2];
        assert_eq!(Reply::read(head, true), Ok(Some(reply(503, ""))));
    }

    #[test]
    fn lines_may_end_without_a_carriage_return_and_the_reason_may_be_missing() {
        let text = b"HTTP/1.0 200\nContent-Length: 2\n\nok";
        assert_eq!(Reply::read(text, false), Ok(Some(reply(200, "ok"))));
    }

    #[test]
    fn what_is_no_reply_is_refused_as_soon_as_it_shows() {
        for text in [
            "SSH-2.0-OpenSSH_9.2p1\r\n",
            "H2",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 abc\r\n\r\n",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
        ] {
            assert!(Reply::read(text.as_bytes(), false).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_status_needs_the_head_alone_and_comes_behind_interim_replies() {
        let text =
            b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 204 No\r\nServer: x\r\n\r\n";
        for end in 0..text.len() {
            assert_eq!(Reply::status(&text[..end], false), Ok(None), "{end}");
            assert!(Reply::status(&text[..end], true).is_err(), "{end}");
        }
        assert_eq!(Reply::status(text, false), Ok(Some(204)));
        let chunked =
            b"HTTP/1.1 500 x\r\nTransfer-Encoding: chunked\r\nContent-Length: x\r\n\r\nff";
        assert_eq!(Reply::status(chunked, false), Ok(Some(500)));
        assert!(Reply::status(b"HTTP/1.1 100 Continue\r\n\r\nSSH-2.0", false).is_err());
    }

    #[test]
    fn sizes_are_bounded() {
        let mut endless = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
        endless.resize(LONGEST_HEAD, b'x');
        assert_eq!(Reply::read(&endless, false), Ok(None));
        endless.push(b'x');
        assert!(Reply::read(&endless, false).is_err());
        let lines = [b"HTTP/1.1 200 OK\n".to_vec(), b"a:b\n".repeat(LONGEST_HEAD)].concat();
        assert!(Reply::read(&lines, false).is_err());

        for head in ["", "Content-Length: 9999999999\r\n"] {
            let mut text = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
            text.resize(text.len() + LONGEST_BODY - 1, b'x');
            assert_eq!(Reply::read(&text, false), Ok(None));
            text.extend_from_slice(b"xxx");
            let cut = Reply::read(&text, false).unwrap().unwrap();
            assert_eq!(cut.body.len(), LONGEST_BODY);
        }
    }
}
