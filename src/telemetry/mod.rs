//! Logs and metrics.
//!
//! Logs are lines of JSON on standard error. Metrics are read at `/api/v1/metrics` in the OpenMetrics text format. Neither
//! holds a secret, and label values come from closed sets or the configuration, never from a request.

mod metrics;

pub use metrics::{CertificateSet, Ending, Metrics, Operation};

use tracing_subscriber::EnvFilter;

/// Starts logging: `RUST_LOG`, or `info` where it is not set.
pub fn start_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
