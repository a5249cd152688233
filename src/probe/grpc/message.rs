//! The two messages of the health service, by hand: a string, and an enumeration.
//!
//! ```text
//! message HealthCheckRequest { string service = 1; }
//! message HealthCheckResponse { ServingStatus status = 1; }
//! enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
//! ```
//!
//! (grpc, `src/proto/grpc/health/v1/health.proto`.) On the wire a message is a row of fields: a key, which is the
//! field's number times 8 plus the type of what follows (0: varint, 1: 8 bytes, 2: a length and so many bytes, 5: 4
//! bytes), and that (protobuf.dev, "Encoding"). gRPC puts five bytes before each message: whether it is compressed, and
//! its length, big-endian (grpc, `doc/PROTOCOL-HTTP2.md`, "Length-Prefixed-Message").

/// What a server says of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Unknown,
    Serving,
    NotServing,
    ServiceUnknown,
    /// Of a later version.
    Other(u64),
}

const PREFIX: usize = 5;

/// The question for this service.
pub(super) fn request(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    // What is empty need not be said.
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        write_varint(service.len() as u64, &mut message);
        message.extend_from_slice(service.as_bytes());
    }
    // More than 4 GiB are no name: the server will say what it thinks of that.
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

/// What the only message of a whole body says.
pub(super) fn response(body: &[u8]) -> Result<Status, &'static str> {
    const NONE: &str = "the reply is no health response";
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or(NONE)?;
    if prefix[0] != 0 {
        // Nothing but the identity was offered.
        return Err("the reply is compressed");
    }
    let length: [u8; 4] = prefix[1..].try_into().map_err(|_| NONE)?;
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(NONE);
    }
    let status = status_of(message).ok_or(NONE)?;
    Ok(match status {
        0 => Status::Unknown,
        1 => Status::Serving,
        2 => Status::NotServing,
        3 => Status::ServiceUnknown,
        other => Status::Other(other),
    })
}

/// Field 1, the last if there are several; others are of later versions.
fn status_of(mut rest: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => status = read_varint(&mut rest)?,
            (_, 0) => drop(read_varint(&mut rest)?),
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = read_varint(&mut rest)?;
                rest = rest.get(usize::try_from(length).ok()?..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn write_varint(mut number: u64, to: &mut Vec<u8>) {
    while number > 0x7f {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

fn read_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap();
        [&[0], &length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn a_request_names_its_service_and_the_whole_server_has_no_name() {
        assert_eq!(request(""), [0, 0, 0, 0, 0]);
        assert_eq!(request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = request(&"x".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 0x2f, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 5 + 3 + 300);
    }

    #[test]
    fn a_response_is_read_whatever_stands_beside_its_field() {
        use super::Status::{NotServing, Other, ServiceUnknown, Serving, Unknown};
        for (message, serving) in [
            (&[][..], Unknown),
            (&[8, 0], Unknown),
            (&[8, 1], Serving),
            (&[8, 2], NotServing),
            (&[8, 3], ServiceUnknown),
            (&[8, 4], Other(4)),
            (&[8, 0x81, 0], Serving),
            (&[8, 2, 8, 1], Serving),
            (&[0x12, 2, 8, 2, 8, 1], Serving),
            (&[0x11, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1], Serving),
            (&[0x15, 1, 2, 3, 4, 8, 1], Serving),
            (&[0x10, 0xff, 0xff, 3, 8, 1], Serving),
            (
                &[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
                Other(u64::MAX),
            ),
        ] {
            assert_eq!(response(&framed(message)), Ok(serving), "{message:?}");
        }
    }

    #[test]
    fn what_is_no_response_is_refused() {
        for message in [
            &[8][..],
            &[8, 0x80],
            &[0, 1],
            &[0x0b],
            &[0x0c],
            &[0x0f],
            &[0x12, 5, 1],
            &[
                0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            &[0x11, 1, 2, 3],
            &[0x15, 1],
            &[
                8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
        ] {
            assert!(response(&framed(message)).is_err(), "{message:?}");
        }
        let whole = framed(&[8, 1]);
        for end in 0..whole.len() {
            assert!(response(&whole[..end]).is_err(), "{end}");
        }
        assert!(
            response(&[&whole[..], &whole].concat()).is_err(),
            "two messages"
        );
    }

    #[test]
    fn no_bytes_make_it_panic() {
        // Each byte of a message that has all types, replaced by each other.
        let message = framed(&[
            8, 1, 0x12, 2, 8, 2, 0x11, 1, 2, 3, 4, 5, 6, 7, 8, 0x15, 1, 2, 3, 4,
        ]);
        assert_eq!(response(&message), Ok(Status::Serving));
        for at in 0..message.len() {
            for byte in 0..=u8::MAX {
                let mut garbled = message.clone();
                garbled[at] = byte;
                for end in 0..=garbled.len() {
                    let _ = response(&garbled[..end]);
                }
            }
        }
    }
}
