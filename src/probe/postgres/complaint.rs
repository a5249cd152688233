//! Errors and notices of the server, and what they say of it.

use std::{error::Error, fmt, io};

use super::wire::{Malformed, Reader};
use crate::probe::{ProbeError, ProbeFailure};

/// So much of a server's text is kept.
const LONGEST_TEXT: usize = 300;

/// An `ErrorResponse` or a `NoticeResponse`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The session has ended (FATAL, PANIC), not only what was asked.
    is_fatal: bool,
    /// SQLSTATE.
    code: String,
    message: String,
}

impl Complaint {
    /// Reads the fields: a letter and a text each.
    pub(super) fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(body);
        let (mut localized, mut severity) = (None, None);
        let (mut code, mut message) = (None, None);
        loop {
            let cut = Malformed("an error that ends early");
            let field = reader.byte().ok_or(cut)?;
            if field == 0 {
                break;
            }
            let text = reader.text().ok_or(cut)?;
            match field {
                b'S' => localized = Some(text),
                b'V' => severity = Some(text), // 9.6 and later
                b'C' => code = Some(text),
                b'M' => message = Some(text),
                _ => {}
            }
        }
        let severity = severity.or(localized).unwrap_or_default();
        Ok(Self {
            is_fatal: matches!(severity, b"FATAL" | b"PANIC"),
            code: readable(code.unwrap_or(b"?????")),
            message: readable(message.unwrap_or_default()),
        })
    }

    /// What a server says that could not start a process for the connection.
    pub(super) fn without_process(text: &[u8]) -> Self {
        Self {
            is_fatal: true,
            code: "53000".to_owned(), // insufficient resources
            message: readable(text),
        }
    }

    /// The session is about to end, whatever the severity: 57P01 an administrator or a stop, 57P02 a crash of
    /// another process, 57P04 the database was dropped, 57P05 too long idle.
    pub(super) fn is_end(&self) -> bool {
        self.is_fatal || matches!(&*self.code, "57P01" | "57P02" | "57P04" | "57P05")
    }

    /// The server will not tell this, today or tomorrow: the function is refused, unknown or not supported,
    /// as on some managed services.
    pub(super) fn is_refusal(&self) -> bool {
        !self.is_fatal && (self.class() == "42" || self.class() == "0A")
    }

    /// Alive: it accepts connections, just not this one.
    pub(super) fn is_of_the_login(&self) -> bool {
        self.failure() == ProbeFailure::Auth
    }

    /// The codes are those of the manual's appendix "PostgreSQL Error Codes".
    fn failure(&self) -> ProbeFailure {
        match (self.class(), &*self.code) {
            ("28", _) => ProbeFailure::Auth,
            // No such database, no CONNECT privilege on it, or it takes no connections: ours to mend.
            (_, "3D000") => ProbeFailure::Auth,
            (_, "42501" | "55000") if self.is_fatal => ProbeFailure::Auth,
            ("53", _) => ProbeFailure::Saturated,
            (_, "57P03") => self.reason(),
            (_, "57P01" | "57P02" | "57P04" | "57P05") => ProbeFailure::Closed,
            (_, "57014") => ProbeFailure::Timeout,
            _ => ProbeFailure::Other,
        }
    }

    /// Why nobody may connect now. One code stands for all, and one function of the server says all
    /// (`ProcessStartupPacket`), so only the English text tells; in another language it is "starting", which
    /// has the same effect.
    fn reason(&self) -> ProbeFailure {
        let says = |text| self.message.contains(text);
        if says("shutting down") {
            ProbeFailure::ShuttingDown
        } else if says("recovery mode") {
            ProbeFailure::Recovering
        } else if says("not accepting") || says("not yet accepting") {
            ProbeFailure::NotAccepting
        } else {
            ProbeFailure::Starting
        }
    }

    fn class(&self) -> &str {
        self.code.get(..2).unwrap_or_default()
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.code)
    }
}

impl Error for Complaint {}

/// Bounded, on one line.
fn readable(text: &[u8]) -> String {
    let text = &text[..text.len().min(LONGEST_TEXT)];
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    let text = String::from_utf8_lossy(text);
    text.trim_end().chars().map(plain).collect()
}

/// Why a conversation did not go on.
#[derive(Debug)]
pub(super) enum Broken {
    Io(io::Error),
    Malformed(Malformed),
    Server(Complaint),
    /// The login did not come to its end, and whose business that is.
    Login(ProbeFailure, String),
}

impl Broken {
    /// While a session was opened.
    pub(super) fn opening(self) -> ProbeError {
        match self {
            Self::Io(error) => ProbeError::opening(error),
            other => other.on_session(),
        }
    }

    /// While a session was open.
    pub(super) fn on_session(self) -> ProbeError {
        match self {
            Self::Io(error) => ProbeError::closed(error),
            Self::Malformed(malformed) => ProbeError::passing(malformed),
            Self::Server(complaint) => ProbeError::new(complaint.failure(), complaint),
            Self::Login(failure, why) => ProbeError::new(failure, why),
        }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Malformed> for Broken {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(severity: &str, code: &str, message: &str) -> Complaint {
        let body = format!("S{severity}\0V{severity}\0C{code}\0M{message}\0Fpostmaster.c\0\0");
        Complaint::read(body.as_bytes()).unwrap()
    }

    #[test]
    fn each_code_becomes_the_failure_that_it_means() {
        use ProbeFailure::{
            Auth, Closed, NotAccepting, Other, Recovering, Saturated, ShuttingDown, Starting,
            Timeout,
        };
        let cases = [
            ("57P03", "the database system is starting up", Starting),
            (
                "57P03",
                "the database system is in recovery mode",
                Recovering,
            ),
            (
                "57P03",
                "the database system is not accepting connections",
                NotAccepting,
            ),
            (
                "57P03",
                "the database system is not yet accepting connections",
                NotAccepting,
            ),
            (
                "57P03",
                "the database system is shutting down",
                ShuttingDown,
            ),
            ("57P03", "das Datenbanksystem startet", Starting),
            ("53300", "sorry, too many clients already", Saturated),
            (
                "53300",
                "remaining connection slots are reserved",
                Saturated,
            ),
            ("53200", "out of memory", Saturated),
            ("28P01", "password authentication failed", Auth),
            ("28000", "no pg_hba.conf entry", Auth),
            ("3D000", "database \"x\" does not exist", Auth),
            ("42501", "permission denied for database \"x\"", Auth),
            ("57P01", "terminating connection", Closed),
            ("57P02", "terminating connection because of crash", Closed),
            (
                "57P05",
                "terminating connection due to idle-session timeout",
                Closed,
            ),
            (
                "57014",
                "canceling statement due to statement timeout",
                Timeout,
            ),
            ("XX000", "internal", Other),
            ("", "", Other),
        ];
        for (code, message, failure) in cases {
            let error = Broken::Server(complaint("FATAL", code, message)).opening();
            assert_eq!(error.failure(), failure, "{code} {message}");
        }
    }

    #[test]
    fn only_a_refused_function_is_a_refusal() {
        assert!(complaint("ERROR", "42501", "permission denied").is_refusal());
        assert!(complaint("ERROR", "42883", "no such function").is_refusal());
        assert!(complaint("ERROR", "0A000", "not supported in Aurora").is_refusal());
        assert!(!complaint("FATAL", "42501", "permission denied").is_refusal());
        assert!(!complaint("ERROR", "57014", "timeout").is_refusal());
    }

    #[test]
    fn a_warning_may_announce_the_end() {
        assert!(complaint("WARNING", "57P02", "crash of another process").is_end());
        assert!(!complaint("WARNING", "01000", "a warning").is_end());
    }

    #[test]
    fn the_severity_is_read_in_any_language() {
        let localized = Complaint::read("SFATALE\0VFATAL\0C57P01\0Mfin\0\0".as_bytes());
        assert!(localized.unwrap().is_fatal);
        let old = Complaint::read(b"SFATAL\0C57P01\0Mend\0\0");
        assert!(old.unwrap().is_fatal);
    }

    #[test]
    fn the_text_is_kept_bounded_and_on_one_line() {
        let long = "ab\n\u{1b}[31m".repeat(10_000);
        let kept = complaint("ERROR", "XX000", &long).to_string();
        assert!(kept.starts_with("ab  [31m") && kept.ends_with("(SQLSTATE XX000)"));
        assert!(kept.len() < LONGEST_TEXT + 40 && !kept.contains(char::is_control));
    }

    #[test]
    fn an_error_that_is_cut_is_malformed() {
        let body = b"SFATAL\0C57P03\0Mstarting\0\0";
        for end in 0..body.len() {
            assert!(Complaint::read(&body[..end]).is_err(), "{end}");
        }
    }
}
