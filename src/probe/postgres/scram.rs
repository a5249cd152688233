//! The client's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), without channel binding.
//!
//! Pure: what is said next follows from what was said. The password is stretched in slices, so that the task
//! that all probes share is never held for long.

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// The most iterations that a server may ask for. PostgreSQL's default is 4,096; 600,000 is what OWASP's
/// Password Storage Cheat Sheet asks of PBKDF2 with this hash, and more than a probe's timeout has room for.
const MOST_ITERATIONS: u32 = 600_000;

/// So many iterations at once: below a millisecond in an optimized build.
const SLICE: u32 = 1024;

/// "n": we can do no channel binding; no other identity than the one that authenticates.
const GS2_HEADER: &str = "n,,";

type Key = [u8; 32];

/// After the first message of ours.
#[derive(Debug)]
pub(super) struct Opening {
    first: String,
    nonce: String,
}

/// After the server's first message, while the password is stretched.
pub(super) struct Stretching {
    /// Keyed with the password, once.
    mac: Hmac<Sha256>,
    last: Key,
    salted: Key,
    left: u32,
    /// The client's first message, the server's first, and the client's last without its proof.
    transcript: String,
    without_proof: String,
}

/// After our last message: what the server must know if it knows the password.
pub(super) struct Proving {
    signature: Hmac<Sha256>,
}

impl Opening {
    /// PostgreSQL takes the user from its own startup message, so `name` is empty except in test vectors.
    /// `nonce`: printable, without a comma, and never used before.
    pub(super) fn new(name: &str, nonce: &str) -> Self {
        Self {
            first: format!("n={name},r={nonce}"),
            nonce: nonce.to_owned(),
        }
    }

    pub(super) fn message(&self) -> String {
        format!("{GS2_HEADER}{}", self.first)
    }

    /// Takes the server's first message: a nonce that goes on from ours, a salt, an iteration count.
    pub(super) fn continued(
        self,
        password: &[u8],
        server_first: &[u8],
    ) -> Result<Stretching, &'static str> {
        let text = std::str::from_utf8(server_first).map_err(|_| "a challenge that is no text")?;
        let mut parts = text.split(',');
        let mut part = |name| parts.next().and_then(|part| part.strip_prefix(name));
        let nonce = part("r=").ok_or("a challenge without a nonce")?;
        let salt = part("s=").ok_or("a challenge without a salt")?;
        let iterations = part("i=").ok_or("a challenge without an iteration count")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("a nonce that does not go on from ours");
        }
        let salt = BASE64_STANDARD.decode(salt);
        let salt = salt.map_err(|_| "a salt that is no base64")?;
        let iterations = iterations.parse().ok();
        let iterations = iterations.filter(|count| (1..=MOST_ITERATIONS).contains(count));
        let iterations = iterations.ok_or("an iteration count out of bounds")?;

        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(GS2_HEADER));
        // PBKDF2 with one block of output (RFC 5802, 2.2, `Hi`).
        let mac = keyed(password);
        let first = mac.clone().chain_update(salt).chain_update([0, 0, 0, 1]);
        let last = first.finalize().into_bytes().into();
        Ok(Stretching {
            mac,
            last,
            salted: last,
            left: iterations - 1,
            transcript: format!("{},{text},{without_proof}", self.first),
            without_proof,
        })
    }
}

impl Stretching {
    /// One slice of the work; true when all is done.
    pub(super) fn step(&mut self) -> bool {
        let slice = self.left.min(SLICE);
        for _ in 0..slice {
            let next = self.mac.clone().chain_update(self.last).finalize();
            self.last = next.into_bytes().into();
            exclusive_or(&mut self.salted, &self.last);
        }
        self.left -= slice;
        self.left == 0
    }

    /// Our last message, and what its answer must be.
    pub(super) fn proof(mut self) -> (String, Proving) {
        while !self.step() {}
        let transcript = self.transcript.as_bytes();
        let client_key: Key = sign(&self.salted, b"Client Key");
        let stored_key = Sha256::digest(client_key);
        let mut proof = client_key;
        exclusive_or(&mut proof, &sign(&stored_key, transcript));
        let proof = BASE64_STANDARD.encode(proof);
        let server_key = sign(&self.salted, b"Server Key");
        let signature = keyed(&server_key).chain_update(transcript);
        let message = format!("{},p={proof}", self.without_proof);
        (message, Proving { signature })
    }
}

impl Proving {
    /// Takes the server's last message: it knows the password too, or it is not the server.
    pub(super) fn verify(self, server_last: &[u8]) -> Result<(), &'static str> {
        let text = server_last.strip_prefix(b"v=");
        let signature = text.ok_or("an outcome without the server's signature")?;
        let signature = signature.split(|&byte| byte == b',').next();
        let signature = BASE64_STANDARD.decode(signature.unwrap_or_default());
        let signature = signature.map_err(|_| "a signature that is no base64")?;
        let verified = self.signature.verify_slice(&signature);
        verified.map_err(|_| "a signature that shows that the server does not know the password")
    }
}

/// With any key: one that is longer than a block is hashed first (RFC 2104).
fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    match block.get_mut(..key.len()) {
        Some(start) => start.copy_from_slice(key),
        None => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    Hmac::new(&block.into())
}

fn sign(key: &[u8], text: &[u8]) -> Key {
    keyed(key).chain_update(text).finalize().into_bytes().into()
}

fn exclusive_or(to: &mut Key, from: &Key) {
    for (to, from) in to.iter_mut().zip(from) {
        *to ^= from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The example of RFC 7677, section 3: user "user", password "pencil".
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
    const SERVER_LAST: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

    fn challenged(server_first: &str) -> Result<Stretching, &'static str> {
        Opening::new("user", NONCE).continued(b"pencil", server_first.as_bytes())
    }

    #[test]
    fn the_exchange_is_that_of_the_rfc() {
        let opening = Opening::new("user", NONCE);
        assert_eq!(opening.message(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (message, proving) = challenged(SERVER_FIRST).unwrap().proof();
        assert_eq!(
            message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(proving.verify(SERVER_LAST.as_bytes()), Ok(()));
    }

    #[test]
    fn stretching_in_slices_takes_as_many_steps_as_slices() {
        let mut stretching = challenged(SERVER_FIRST).unwrap();
        let mut steps = 1;
        while !stretching.step() {
            steps += 1;
        }
        assert_eq!(steps, 4);
    }

    #[test]
    fn a_server_that_does_not_know_the_password_is_refused() {
        let others = [
            "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl9",
            "v=",
            "v=?",
            "e=invalid-proof",
            "",
        ];
        for last in others {
            let (_, proving) = challenged(SERVER_FIRST).unwrap().proof();
            assert!(proving.verify(last.as_bytes()).is_err(), "{last}");
        }
    }

    #[test]
    fn a_challenge_that_cannot_be_is_refused() {
        let refused = [
            ("r=rOprNGfwEbeRWgbNEkqO,s=W22Z,i=4096", "nonce"),
            ("r=another,s=W22Z,i=4096", "nonce"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W2,i=4096", "salt"),
            ("r=rOprNGfwEbeRWgbNEkqOx,i=4096", "salt"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z", "iteration"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=0", "iteration"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=600001", "iteration"),
            ("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=-1", "iteration"),
            ("m=must,r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1", "nonce"),
            ("", "nonce"),
        ];
        for (challenge, why) in refused {
            let error = challenged(challenge).err().unwrap();
            assert!(error.contains(why), "{challenge}: {error}");
        }
    }

    #[test]
    fn one_iteration_is_the_first_block_alone() {
        let mut stretching = challenged("r=rOprNGfwEbeRWgbNEkqOx,s=W22Z,i=1").unwrap();
        let before = stretching.salted;
        assert!(stretching.step());
        assert_eq!(stretching.salted, before);
    }
}
