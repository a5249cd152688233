//! What an error of the application's own driver hints at.

use std::{io, net::SocketAddr};

/// What an error that the application saw says about the node: never evidence, always a reason to look.
///
/// A write refused as read-only may come from the user's own read-only transaction. So a hint asks the
/// probes at once, and they decide.
///
/// The tables below read what drivers tell, and need none of them. What is not in a table is no hint.
///
/// ```
/// use headless_lb::Hint;
///
/// // `database_error.code()` of the driver: a node that is a standby now refused a write.
/// assert_eq!(Hint::from_pg("25006"), Some(Hint::NotPrimary));
/// // A unique violation tells nothing of the node.
/// assert_eq!(Hint::from_pg("23505"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Hint {
    /// The connection broke or could not be made: this node is probed, and DNS asked.
    Connection,
    /// The node said that it ends the connection: it is dead, and all nodes are probed.
    GoingAway,
    /// The primary is elsewhere: there, if an address was told. That one is probed; an unknown one makes
    /// DNS be asked.
    Moved(Option<SocketAddr>),
    /// The node refused a write since it is not the primary: all nodes are probed.
    NotPrimary,
    /// The node cannot serve yet: it is probed.
    NotReady,
    /// The node has no room: says nothing of roles, and is ignored.
    Overload,
}

impl Hint {
    /// Reads an SQLSTATE of PostgreSQL, five characters long.
    ///
    /// Names as in appendix A of its manual,
    /// <https://www.postgresql.org/docs/current/errcodes-appendix.html>. `57P05` (`idle_session_timeout`)
    /// ends a connection that idled and hints at nothing.
    pub fn from_pg(sqlstate: &str) -> Option<Self> {
        match sqlstate {
            // read_only_sql_transaction
            "25006" => Some(Self::NotPrimary),
            // too_many_connections
            "53300" => Some(Self::Overload),
            // admin_shutdown, crash_shutdown
            "57P01" | "57P02" => Some(Self::GoingAway),
            // cannot_connect_now
            "57P03" => Some(Self::NotReady),
            // connection_exception and its class
            _ if sqlstate.len() == 5 && sqlstate.starts_with("08") => Some(Self::Connection),
            _ => None,
        }
    }

    /// Reads an error number of MySQL or MariaDB: the server's (1000 and up) or the client library's (2000
    /// and up).
    ///
    /// Names as in <https://dev.mysql.com/doc/mysql-errors/8.0/en/>; MariaDB has the same
    /// (<https://mariadb.com/kb/en/mariadb-error-code-reference/>).
    pub fn from_mysql(errno: u16) -> Option<Self> {
        match errno {
            // ER_OPTION_PREVENTS_STATEMENT (--read-only), ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION,
            // ER_READ_ONLY_MODE
            1290 | 1792 | 1836 => Some(Self::NotPrimary),
            // ER_SERVER_SHUTDOWN, CR_SERVER_GONE_ERROR, CR_SERVER_LOST
            1053 | 2006 | 2013 => Some(Self::GoingAway),
            // ER_UNKNOWN_COM_ERROR, which a Galera node says that is not in the primary component;
            // ER_RUN_HOOK_ERROR, which a group member says that has no majority
            1047 | 3100 => Some(Self::NotReady),
            // ER_CON_COUNT_ERROR
            1040 => Some(Self::Overload),
            _ => None,
        }
    }

    /// Reads an error reply of Redis or Valkey by its first word, with the `-` of the wire or without.
    ///
    /// The words are those of `src/server.c`, `src/cluster.c` and `src/blocked.c` of Redis 7.0. `MOVED`
    /// brings the slot and the address; its host may be empty or a name, which is no address
    /// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#moved-redirection>).
    /// `ASK` is for one command only and moves nothing.
    ///
    /// ```
    /// use headless_lb::Hint;
    ///
    /// let hint = Hint::from_redis("MOVED 3999 127.0.0.1:6381");
    /// assert_eq!(hint, Some(Hint::Moved(Some(([127, 0, 0, 1], 6381).into()))));
    /// ```
    pub fn from_redis(message: &str) -> Option<Self> {
        let mut words = message.trim_start_matches('-').split_ascii_whitespace();
        match words.next()? {
            // UNBLOCKED: a blocked command whose node became a replica.
            "READONLY" | "UNBLOCKED" => Some(Self::NotPrimary),
            "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "NOREPLICAS" | "TRYAGAIN" => {
                Some(Self::NotReady)
            }
            "MOVED" => Some(Self::Moved(words.nth(1).and_then(redis_address))),
            _ => None,
        }
    }

    /// Reads a code of MongoDB.
    ///
    /// The codes and their two groups, "not writable primary" and "node is recovering", as in
    /// <https://github.com/mongodb/specifications/blob/master/source/server-discovery-and-monitoring/server-discovery-and-monitoring.md>.
    pub fn from_mongo(code: i32) -> Option<Self> {
        match code {
            // NotWritablePrimary, NotPrimaryNoSecondaryOk, LegacyNotPrimary, PrimarySteppedDown
            10107 | 13435 | 10058 | 189 => Some(Self::NotPrimary),
            // InterruptedAtShutdown, ShutdownInProgress
            11600 | 91 => Some(Self::GoingAway),
            // InterruptedDueToReplStateChange, NotPrimaryOrSecondary
            11602 | 13436 => Some(Self::NotReady),
            _ => None,
        }
    }

    /// Reads an error of a socket: whether it is about the way to the node. One of our own, such as no file
    /// descriptor left, is not.
    pub fn from_io(error: &io::Error) -> Option<Self> {
        use io::ErrorKind::{
            BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable,
            NetworkDown, NetworkUnreachable, NotConnected, TimedOut, UnexpectedEof,
        };
        matches!(
            error.kind(),
            BrokenPipe
                | ConnectionAborted
                | ConnectionRefused
                | ConnectionReset
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
                | NotConnected
                | TimedOut
                | UnexpectedEof
        )
        .then_some(Self::Connection)
    }
}

/// Redis writes an IPv6 address without brackets: the port follows the last colon.
fn redis_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.rsplit_once(':')?;
    Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sqlstate_hints_at_what_its_name_says() {
        let table = [
            ("25006", Some(Hint::NotPrimary)),
            ("57P01", Some(Hint::GoingAway)),
            ("57P02", Some(Hint::GoingAway)),
            ("57P03", Some(Hint::NotReady)),
            ("53300", Some(Hint::Overload)),
            ("08000", Some(Hint::Connection)),
            ("08001", Some(Hint::Connection)),
            ("08003", Some(Hint::Connection)),
            ("08004", Some(Hint::Connection)),
            ("08006", Some(Hint::Connection)),
            ("08007", Some(Hint::Connection)),
            ("08P01", Some(Hint::Connection)),
            ("57P04", None),
            ("57P05", None),
            ("57014", None),
            ("40001", None),
            ("23505", None),
            ("00000", None),
            ("08", None),
            ("", None),
        ];
        for (code, hint) in table {
            assert_eq!(Hint::from_pg(code), hint, "{code}");
        }
    }

    #[test]
    fn each_error_number_of_mysql_hints_at_what_its_name_says() {
        let table = [
            (1290, Some(Hint::NotPrimary)),
            (1792, Some(Hint::NotPrimary)),
            (1836, Some(Hint::NotPrimary)),
            (1053, Some(Hint::GoingAway)),
            (2006, Some(Hint::GoingAway)),
            (2013, Some(Hint::GoingAway)),
            (1047, Some(Hint::NotReady)),
            (3100, Some(Hint::NotReady)),
            (1040, Some(Hint::Overload)),
            (1045, None), // access denied
            (1062, None), // duplicate key
            (1205, None), // lock wait
            (1213, None), // deadlock
            (0, None),
        ];
        for (code, hint) in table {
            assert_eq!(Hint::from_mysql(code), hint, "{code}");
        }
    }

    #[test]
    fn each_error_word_of_redis_hints_at_what_it_says() {
        let table = [
            (
                "READONLY You can't write against a read only replica.",
                Some(Hint::NotPrimary),
            ),
            (
                "-READONLY You can't write against a read only replica.\r\n",
                Some(Hint::NotPrimary),
            ),
            (
                "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
                Some(Hint::NotPrimary),
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Some(Hint::NotReady),
            ),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                Some(Hint::NotReady),
            ),
            ("CLUSTERDOWN The cluster is down", Some(Hint::NotReady)),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Some(Hint::NotReady),
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Some(Hint::NotReady),
            ),
            ("ASK 3999 127.0.0.1:6381", None),
            ("ERR unknown command 'READONLYX'", None),
            ("READONLYX", None),
            ("WRONGTYPE Operation against a key", None),
            ("NOAUTH Authentication required.", None),
            ("", None),
            ("-", None),
        ];
        for (message, hint) in table {
            assert_eq!(Hint::from_redis(message), hint, "{message}");
        }
    }

    #[test]
    fn a_moved_slot_brings_its_address_if_it_is_one() {
        let moved = |text: &str| Hint::from_redis(text);
        let to = |addr: &str| Some(Hint::Moved(Some(addr.parse().unwrap())));
        assert_eq!(moved("MOVED 3999 127.0.0.1:6381"), to("127.0.0.1:6381"));
        assert_eq!(
            moved("-MOVED 3999 127.0.0.1:6381\r\n"),
            to("127.0.0.1:6381")
        );
        assert_eq!(moved("MOVED 0 fd00::7:6379"), to("[fd00::7]:6379"));
        for without in [
            "MOVED 3999 :6381",
            "MOVED 3999 redis-0.redis:6381",
            "MOVED 3999 127.0.0.1:66666",
            "MOVED 3999 127.0.0.1",
            "MOVED 3999",
            "MOVED",
        ] {
            assert_eq!(moved(without), Some(Hint::Moved(None)), "{without}");
        }
    }

    #[test]
    fn each_code_of_mongodb_hints_at_what_its_name_says() {
        let table = [
            (10107, Some(Hint::NotPrimary)),
            (13435, Some(Hint::NotPrimary)),
            (10058, Some(Hint::NotPrimary)),
            (189, Some(Hint::NotPrimary)),
            (11600, Some(Hint::GoingAway)),
            (91, Some(Hint::GoingAway)),
            (11602, Some(Hint::NotReady)),
            (13436, Some(Hint::NotReady)),
            (11000, None), // duplicate key
            (112, None),   // write conflict
            (0, None),
            (-1, None),
        ];
        for (code, hint) in table {
            assert_eq!(Hint::from_mongo(code), hint, "{code}");
        }
    }

    #[test]
    fn an_error_of_the_way_is_a_hint_and_one_of_our_own_is_none() {
        use io::ErrorKind;
        for kind in [
            ErrorKind::BrokenPipe,
            ErrorKind::ConnectionAborted,
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::HostUnreachable,
            ErrorKind::NetworkDown,
            ErrorKind::NetworkUnreachable,
            ErrorKind::NotConnected,
            ErrorKind::TimedOut,
            ErrorKind::UnexpectedEof,
        ] {
            let hint = Hint::from_io(&kind.into());
            assert_eq!(hint, Some(Hint::Connection), "{kind}");
        }
        for kind in [
            ErrorKind::AddrInUse,
            ErrorKind::AddrNotAvailable,
            ErrorKind::InvalidData,
            ErrorKind::OutOfMemory,
            ErrorKind::PermissionDenied,
            ErrorKind::Other,
        ] {
            assert_eq!(Hint::from_io(&kind.into()), None, "{kind}");
        }
    }
}
