//! The balancer as people want to see it.

use std::fmt;

use super::{Balancer, explain::Explained};
use crate::age::Span;

/// The view for people: a line on discovery, then a line for each endpoint, with why it does not take its requests.
/// [`explain`](Balancer::explain) tells more.
///
/// ```text
/// db.prod.svc.cluster.local: 2 endpoints, answer 1.2 s ago (SRV, TTL 30 s)
///   pod   address          role     state      in flight  age
///   db-0  10.244.1.7:5432  primary  available          3  12 min
///   db-1  10.244.2.4:5432  replica  ejected            0  12 min  5 failures in a row, last: gRPC UNAVAILABLE; 18 s left
/// ```
impl<S> fmt::Display for Balancer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let explanation = self.explain();
        f.write_str(explanation.headline())?;
        let endpoints = explanation.endpoints();
        if endpoints.is_empty() {
            return Ok(());
        }
        let widest = |title: &str, length: fn(&Explained) -> usize| {
            endpoints.iter().map(length).fold(title.len(), usize::max)
        };
        let name = widest("pod", |one| one.name().map_or(1, str::len));
        let addr = widest("address", |one| one.addr().to_string().len());
        write!(
            f,
            "\n  {:name$}  {:addr$}  role     state      in flight  age",
            "pod", "address"
        )?;
        for one in endpoints {
            let pod = one.name().unwrap_or("-");
            let role = one
                .role()
                .as_ref()
                .map_or_else(|| "-".to_owned(), ToString::to_string);
            let (address, state, pending) = (one.addr().to_string(), one.state(), one.pending());
            let age = Span(one.age());
            write!(
                f,
                "\n  {pod:name$}  {address:addr$}  {role:7}  {state:9}  {pending:9}  {age}"
            )?;
            if let Some(reason) = one.reason() {
                write!(f, "  {reason}")?;
            }
            if let Some(until) = one.until() {
                let sign = if one.reason().is_some() { ";" } else { " " };
                write!(f, "{sign} {} left", Span(until))?;
            }
        }
        Ok(())
    }
}
