//! The balancer as people want to see it.

use std::fmt;

use super::Balancer;
use crate::{age::Ago, set::Position};

/// The view for people: a line on discovery, then a line for each endpoint.
///
/// ```text
/// db.prod.svc.cluster.local: 2 endpoints, answer 1.2 s ago (SRV, TTL 30 s)
///   pod   address          role     state      in flight  age
///   db-0  10.244.1.7:5432  primary  available          3  12 min
///   db-1  10.244.2.4:5432  replica  available          0  12 min
/// ```
impl<S> fmt::Display for Balancer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = self.endpoints();
        write!(f, "{}", self.shared.status.load())?;
        if set.is_empty() {
            return Ok(());
        }
        let widest = |lengths: &mut dyn Iterator<Item = usize>, title: usize| {
            lengths.fold(title, usize::max)
        };
        let name = widest(
            &mut set.iter().map(|e| e.name().map_or(1, str::len)),
            "pod".len(),
        );
        let addr = widest(
            &mut set.iter().map(|e| e.addr().to_string().len()),
            "address".len(),
        );
        write!(
            f,
            "\n  {:name$}  {:addr$}  role     state      in flight  age",
            "pod", "address"
        )?;
        for (position, endpoint) in set.positions() {
            let (role, state) = match position {
                Position::Primary => ("primary", "available"),
                Position::Replica => ("replica", "available"),
                Position::Unknown => ("-", "available"),
                Position::Ejected => ("-", "ejected"),
                Position::Rejected => ("-", "rejected"),
            };
            let pod = endpoint.name().unwrap_or("-");
            let (address, pending) = (endpoint.addr().to_string(), endpoint.pending());
            let since = Ago(endpoint.since());
            write!(
                f,
                "\n  {pod:name$}  {address:addr$}  {role:7}  {state:9}  {pending:9}  {since}"
            )?;
        }
        Ok(())
    }
}
