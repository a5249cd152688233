//! DNS
/// A DNS name.
#[derive(Debug)]
pub struct Dns;
