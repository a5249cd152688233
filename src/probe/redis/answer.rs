//! What the replies mean.

use std::net::{IpAddr, SocketAddr};

use super::resp::Reply;
use crate::probe::{Lineage, Observation, ProbeError, ProbeFailure, Role};

/// What the probe's user must be allowed.
const RULES: &str = "the probe needs `ACL SETUSER <user> on ><password> +role +info`";

/// The node took the password.
pub(super) fn logged_in(reply: &Reply) -> Result<(), ProbeError> {
    match reply {
        Reply::Error(error) => Err(match failure(error) {
            // The words differ from version to version. What it refuses is the login in any case.
            ProbeFailure::Other => refused(ProbeFailure::Auth, error),
            failure => refused(failure, error),
        }),
        _ => Ok(()),
    }
}

/// `INFO persistence`: the node has its data. `ROLE` is answered by one that is loading too.
pub(super) fn loaded(reply: &Reply) -> Result<(), ProbeError> {
    let info = match reply {
        Reply::Text(info) => info,
        Reply::Error(error) if is_forbidden(error) => return Ok(()),
        other => return Err(unexpected("INFO persistence", other)),
    };
    match field(info, "loading") {
        Some("1") => Err(ProbeError::new(
            ProbeFailure::Starting,
            "it is loading its data",
        )),
        _ => Ok(()),
    }
}

/// `ROLE` and `INFO replication`, the second of which may be forbidden.
pub(super) fn observed(role: &Reply, replication: &Reply) -> Result<Observation, ProbeError> {
    let observation = role_of(role)?;
    let info = match replication {
        Reply::Text(info) => info,
        Reply::Error(error) if is_forbidden(error) => return Ok(observation),
        other => return Err(unexpected("INFO replication", other)),
    };
    let observation = match lineage(info) {
        Some(lineage) => observation.in_lineage(lineage),
        None => observation,
    };
    // Told if `min-replicas-to-write` is set, which is then at least 1.
    let is_fenced = field(info, "min_slaves_good_slaves") == Some("0");
    Ok(if is_fenced && observation.role() == Role::Primary {
        observation.fenced_by("min-replicas-to-write: it has no replica in time")
    } else {
        observation
    })
}

/// `INFO stats`: the node was fed by a master since it started. Before Redis 7.0, which does not tell, a server that
/// starts as a master has no past (<https://github.com/redis/redis/pull/8015>).
pub(super) fn was_replica(reply: &Reply) -> Result<bool, ProbeError> {
    match reply {
        Reply::Text(info) => Ok(field(info, "total_net_repl_input_bytes") != Some("0")),
        other => Err(unexpected("INFO stats", other)),
    }
}

/// `master <offset> [...]` or `slave <ip> <port> <state> <offset>`: <https://redis.io/docs/latest/commands/role/>.
fn role_of(reply: &Reply) -> Result<Observation, ProbeError> {
    let parts = match reply {
        Reply::Array(parts) => &parts[..],
        other => return Err(unexpected("ROLE", other)),
    };
    let is = |part: &Reply, word: &str| matches!(part, Reply::Text(text) if text == word);
    let (observation, offset) = match parts {
        [role, Reply::Integer(offset), ..] if is(role, "master") => {
            (Observation::of(Role::Primary), *offset)
        }
        [role, host, Reply::Integer(port), _, Reply::Integer(offset)] if is(role, "slave") => {
            let replica = Observation::of(Role::Replica);
            let observation = match address(host, *port) {
                Some(primary) => replica.pointing_to(primary),
                None => replica,
            };
            (observation, *offset)
        }
        [role, ..] if is(role, "sentinel") => {
            let what = "this is a Sentinel: probe the servers, not those who watch them";
            return Err(ProbeError::passing(what));
        }
        _ => return Err(unexpected("ROLE", reply)),
    };
    // A replica without its master says -1.
    Ok(match u64::try_from(offset) {
        Ok(offset) => observation.at_position(offset),
        Err(_) => observation,
    })
}

/// A master that is configured by name is none of ours to look up.
fn address(host: &Reply, port: i64) -> Option<SocketAddr> {
    let Reply::Text(host) = host else { return None };
    let ip: IpAddr = host.parse().ok()?;
    Some(SocketAddr::new(ip, u16::try_from(port).ok()?))
}

fn lineage(info: &str) -> Option<Lineage> {
    let lineage = Lineage::of(field(info, "master_replid")?);
    Some(match field(info, "master_replid2") {
        Some(previous) if previous.bytes().any(|digit| digit != b'0') => lineage.after(previous),
        _ => lineage,
    })
}

/// The value in the line `key:value`.
fn field<'i>(info: &'i str, key: &str) -> Option<&'i str> {
    info.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))
        .map(str::trim_end)
}

/// `INFO` is less urgent than `ROLE`: without the right to it the role is still known.
fn is_forbidden(error: &str) -> bool {
    error.starts_with("NOPERM ")
}

fn unexpected(command: &str, reply: &Reply) -> ProbeError {
    match reply {
        Reply::Error(error) => refused(failure(error), error),
        _ => ProbeError::passing(format!(
            "{command} is answered in a way that is not known here"
        )),
    }
}

fn refused(failure: ProbeFailure, error: &str) -> ProbeError {
    let error = shortened(error);
    match failure {
        ProbeFailure::Auth => ProbeError::new(failure, format!("{error} ({RULES})")),
        _ => ProbeError::new(failure, error),
    }
}

/// By the first word, which is what clients may rely on; the two that begin with `ERR` by their text, as
/// `networking.c` of Redis has it.
fn failure(error: &str) -> ProbeFailure {
    match error.split(' ').next().unwrap_or_default() {
        "DENIED" | "NOAUTH" | "NOPERM" | "WRONGPASS" => ProbeFailure::Auth,
        "LOADING" => ProbeFailure::Starting,
        // A script runs too long. It is there and is what it was, and does not talk to us.
        "BUSY" => ProbeFailure::Saturated,
        "ERR" if error.starts_with("ERR max number of clients") => ProbeFailure::Saturated,
        _ => ProbeFailure::Other,
    }
}

/// For people: a server may say more than they read.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &str = "514681d327e6a121edec233e53d2d6d3522a8aaa";
    const SECOND: &str = "cb280782a6e0f0217db70aa7879736f039c33f85";

    fn text(text: impl Into<String>) -> Reply {
        Reply::Text(text.into())
    }

    fn error(text: &str) -> Reply {
        Reply::Error(text.to_owned())
    }

    fn master(offset: i64) -> Reply {
        let replicas = Reply::Array(Vec::new());
        Reply::Array(vec![text("master"), Reply::Integer(offset), replicas])
    }

    fn slave(host: &str, offset: i64) -> Reply {
        let (state, offset) = (text("connected"), Reply::Integer(offset));
        Reply::Array(vec![
            text("slave"),
            text(host),
            Reply::Integer(6379),
            state,
            offset,
        ])
    }

    fn replication(id: &str, previous: &str, more: &str) -> Reply {
        text(format!(
            "# Replication\r\nmaster_replid:{id}\r\nmaster_replid2:{previous}\r\n{more}\r\n"
        ))
    }

    #[test]
    fn a_promoted_master_names_the_one_it_supersedes() {
        let zeros = "0".repeat(40);
        let seen = observed(&master(42), &replication(FIRST, &zeros, "")).unwrap();
        assert_eq!((seen.role(), seen.position()), (Role::Primary, Some(42)));
        assert_eq!(seen.lineage(), Some(&Lineage::of(FIRST)));
        let seen = observed(&master(42), &replication(SECOND, FIRST, "")).unwrap();
        assert_eq!(seen.lineage(), Some(&Lineage::of(SECOND).after(FIRST)));
    }

    #[test]
    fn a_replica_points_to_a_master_that_it_knows_by_address() {
        let seen = observed(&slave("10.0.0.7", -1), &error("NOPERM no info")).unwrap();
        assert_eq!(seen.points_to(), Some("10.0.0.7:6379".parse().unwrap()));
        assert_eq!((seen.role(), seen.position()), (Role::Replica, None));
        assert_eq!(seen.lineage(), None, "what is forbidden is not known");
        let seen = observed(&slave("redis-0.redis", 7), &error("NOPERM")).err();
        assert_eq!(seen.map(|error| error.failure()), Some(ProbeFailure::Auth));
        let seen = observed(&slave("redis-0.redis", 7), &error("NOPERM no info")).unwrap();
        assert_eq!((seen.points_to(), seen.position()), (None, Some(7)));
    }

    #[test]
    fn a_master_whose_replicas_are_all_late_is_fenced() {
        let late = replication(FIRST, SECOND, "min_slaves_good_slaves:0");
        let fence = |role: &Reply, info: &Reply| {
            let seen = observed(role, info).unwrap();
            seen.fence().map(str::to_owned)
        };
        assert!(
            fence(&master(1), &late)
                .unwrap()
                .contains("min-replicas-to-write")
        );
        assert_eq!(fence(&slave("10.0.0.7", 1), &late), None);
        let one = replication(FIRST, SECOND, "min_slaves_good_slaves:1");
        assert_eq!(fence(&master(1), &one), None);
    }

    #[test]
    fn a_node_that_loads_is_starting_whatever_its_role() {
        let info = |loading| {
            text(format!(
                "# Persistence\r\nloading:{loading}\r\nasync_loading:0\r\n"
            ))
        };
        let seen = loaded(&info("1")).unwrap_err();
        assert_eq!(seen.failure(), ProbeFailure::Starting);
        assert!(seen.is_definitive());
        assert!(loaded(&info("0")).is_ok() && loaded(&error("NOPERM no info")).is_ok());
    }

    #[test]
    fn what_a_server_refuses_says_why() {
        use ProbeFailure::{Auth, Other, Saturated, Starting};
        let refusals = [
            ("NOAUTH Authentication required.", Auth),
            (
                "NOPERM this user has no permissions to run the 'role' command",
                Auth,
            ),
            ("DENIED Redis is running in protected mode", Auth),
            ("LOADING Redis is loading the dataset in memory", Starting),
            ("BUSY Redis is busy running a script.", Saturated),
            ("ERR max number of clients reached", Saturated),
            ("ERR unknown command 'ROLE'", Other),
            ("", Other),
        ];
        let none = error("NOPERM no info");
        for (said, failure) in refusals {
            let seen = observed(&error(said), &none).unwrap_err();
            assert_eq!(seen.failure(), failure, "{said}");
        }
        for said in [
            "WRONGPASS invalid username-password pair",
            "ERR invalid password",
        ] {
            let seen = logged_in(&error(said)).unwrap_err();
            assert_eq!(seen.failure(), Auth);
            let why = std::error::Error::source(&seen).unwrap().to_string();
            assert!(why.contains(said) && why.contains("+role +info"), "{why}");
        }
        let seen = logged_in(&error("ERR max number of clients reached"));
        assert_eq!(seen.unwrap_err().failure(), Saturated);
    }

    #[test]
    fn answers_of_another_shape_are_refused() {
        let none = error("NOPERM no info");
        let sentinel = Reply::Array(vec![text("sentinel"), Reply::Array(Vec::new())]);
        let strange = [
            sentinel,
            text("master"),
            Reply::Integer(1),
            Reply::Nothing,
            Reply::Array(Vec::new()),
            Reply::Array(vec![text("master")]),
            Reply::Array(vec![text("slave"), text("10.0.0.7"), Reply::Integer(1)]),
        ];
        for role in strange {
            let seen = observed(&role, &none).unwrap_err();
            assert_eq!(seen.failure(), ProbeFailure::Other, "{role:?}");
        }
        assert!(observed(&master(1), &Reply::Nothing).is_err());
        let odd = observed(&slave("10.0.0.7", 1), &text("")).unwrap();
        assert_eq!(odd.lineage(), None);
    }
}
