//! The HTTP client's metrics.
