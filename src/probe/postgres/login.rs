//! From the first message to the first "ready": who we are, and the proof of it.

use std::{fmt::Write, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use rand::{TryRng, rngs::SysRng};

use super::{
    complaint::Broken,
    conversation::Conversation,
    scram,
    wire::{self, Malformed, Message, Reader},
};
use crate::probe::ProbeFailure;

/// How a session introduces itself in `pg_stat_activity` and in the server's log.
const APPLICATION: &str = "headless-lb probe";

/// Who logs in, and how.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: Arc<str>,
    pub(super) password: Option<Arc<str>>,
    pub(super) database: Arc<str>,
    /// Says the password in clear on a connection that is not encrypted.
    pub(super) cleartext: bool,
    /// After this time nobody waits for a statement any more, so the server ends it: what waits for a lock
    /// would hold its connection.
    pub(super) statement_timeout: Duration,
}

impl Login {
    pub(super) async fn run(
        &self,
        conversation: &mut Conversation,
        is_encrypted: bool,
        nonce: &str,
    ) -> Result<(), Broken> {
        self.begin(conversation).await?;
        let request = conversation.hear().await?;
        let (kind, mut reader) = authentication(&request)?;
        let must_confirm = kind != OK;
        match kind {
            OK => {}
            CLEARTEXT if is_encrypted || self.cleartext => {
                let password = self.password()?;
                conversation.say(&wire::password(password)).await?;
            }
            CLEARTEXT => {
                let why = "the server asks for the password in clear on a connection that is not encrypted: \
                     use TLS, or scram-sha-256 in pg_hba.conf, or allow it (`Postgres::cleartext`)";
                return Err(refused(why));
            }
            MD5 => {
                let salt = reader
                    .take(4)
                    .ok_or(Malformed("a salt that is too short"))?;
                let hash = md5_password(&self.user, self.password()?, salt);
                conversation.say(&wire::password(&hash)).await?;
            }
            SASL => self.scram(conversation, reader, nonce).await?,
            other => {
                let why = format!(
                    "the server asks for a kind of authentication that a probe does not speak ({}): \
                     give its role a password (scram-sha-256) in pg_hba.conf",
                    kind_name(other)
                );
                return Err(refused(why));
            }
        }
        if must_confirm {
            let confirmed = conversation.hear().await?;
            if authentication(&confirmed)?.0 != OK {
                return Err(Malformed("a second question for the password").into());
            }
        }
        loop {
            match conversation.hear().await?.tag {
                b'K' => {} // what cancels a statement: not ours to do
                b'Z' => return Ok(()),
                _ => return Err(Malformed("a message that no login has").into()),
            }
        }
    }

    /// Says who we are.
    pub(super) async fn begin(&self, conversation: &mut Conversation) -> Result<(), Broken> {
        let milliseconds = self
            .statement_timeout
            .as_millis()
            .clamp(1, MOST_MILLISECONDS);
        let startup = wire::startup(&[
            ("user", &self.user),
            ("database", &self.database),
            ("application_name", APPLICATION),
            ("statement_timeout", &milliseconds.to_string()),
        ]);
        let startup = startup.ok_or_else(|| {
            refused("a role or database with a zero byte in its name cannot be said")
        })?;
        conversation.say(&startup).await
    }

    async fn scram(
        &self,
        conversation: &mut Conversation,
        mut mechanisms: Reader<'_>,
        nonce: &str,
    ) -> Result<(), Broken> {
        let wanted = scram::MECHANISM.as_bytes();
        loop {
            match mechanisms.text() {
                Some(mechanism) if mechanism == wanted => break,
                Some(b"") | None => {
                    return Err(refused("the server does not offer SCRAM-SHA-256"));
                }
                Some(_) => {}
            }
        }
        let password = self.password()?;
        // The server knows the user from the first message; libpq leaves it empty here too.
        let opening = scram::Opening::new("", nonce);
        let first = wire::sasl_first(scram::MECHANISM, &opening.message());
        conversation.say(&first).await?;
        let challenge = conversation.hear().await?;
        let (SASL_CONTINUE, challenge) = authentication(&challenge)? else {
            return Err(Malformed("no challenge of SCRAM").into());
        };
        let stretching = opening.continued(password.as_bytes(), challenge.rest());
        let mut stretching = stretching.map_err(Malformed)?;
        while !stretching.step() {
            tokio::task::yield_now().await;
        }
        let (proof, proving) = stretching.proof();
        conversation.say(&wire::sasl_next(&proof)).await?;
        let outcome = conversation.hear().await?;
        let (SASL_FINAL, outcome) = authentication(&outcome)? else {
            return Err(Malformed("no outcome of SCRAM").into());
        };
        proving.verify(outcome.rest()).map_err(refused)
    }

    fn password(&self) -> Result<&str, Broken> {
        let missing = || {
            let user = &self.user;
            refused(format!(
                "the server asks for a password of the role \"{user}\", and none was given (`Postgres::password`)"
            ))
        };
        let password = self.password.as_deref().ok_or_else(missing)?;
        if password.contains('\0') {
            return Err(refused("a password with a zero byte cannot be said"));
        }
        Ok(password)
    }
}

/// The kinds of `Authentication...` messages that matter.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// The longest that `statement_timeout` can be.
const MOST_MILLISECONDS: u128 = i32::MAX as u128;

fn kind_name(kind: i32) -> String {
    match kind {
        2 => "Kerberos V5".to_owned(),
        7 | 8 => "GSSAPI".to_owned(),
        9 => "SSPI".to_owned(),
        other => format!("number {other}"),
    }
}

/// What an `Authentication...` message is, and the rest of it.
fn authentication(message: &Message) -> Result<(i32, Reader<'_>), Malformed> {
    let mut reader = Reader(&message.body);
    match (message.tag, reader.int()) {
        (b'R', Some(kind)) => Ok((kind, reader)),
        _ => Err(Malformed("a login that does not ask for authentication")),
    }
}

fn refused(why: impl Into<String>) -> Broken {
    Broken::Login(ProbeFailure::Auth, why.into())
}

/// As the manual has it: "md5", then the hash of the salt behind the hash of password and user.
fn md5_password(user: &str, password: &str, salt: &[u8]) -> String {
    let inner = Md5::new().chain_update(password).chain_update(user);
    let outer = Md5::new().chain_update(hexadecimal(&inner.finalize()));
    let outer = outer.chain_update(salt).finalize();
    format!("md5{}", hexadecimal(&outer))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 18 random bytes, as libpq takes, from the system's generator for cryptography.
pub(super) fn nonce() -> Result<String, Broken> {
    let mut bytes = [0; 18];
    let drawn = SysRng.try_fill_bytes(&mut bytes);
    drawn.map_err(|error| Broken::Login(ProbeFailure::Other, error.to_string()))?;
    Ok(BASE64_STANDARD.encode(bytes))
}
