//! The library against real name servers and web servers, as child processes on the loopback network.
//!
//! They come from Debian's packages; `tests/run` installs them. A missing program fails its tests.

mod process;
#[path = "../support/wire.rs"]
mod wire;

mod name_server;
mod zone;
