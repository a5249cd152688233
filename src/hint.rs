//! What an error of the application's own driver hints at.

use std::net::SocketAddr;

/// What an error that the application saw says about the node: never evidence, always a reason to look.
///
/// A write refused as read-only may come from the user's own read-only transaction. So a hint asks the
/// probes at once, and they decide.
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
