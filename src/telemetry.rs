//! The log: structured, on standard error, one line for each thing that was decided. And the metrics, for Prometheus.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::{Log, LogFormat};

/// The log cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// `log.filter` is not one.
    #[error("log.filter is not a valid filter")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// It was set up before.
    #[error("the log is set up already")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
}

/// Sets up the process's log.
pub fn init(log: &Log) -> Result<(), InitError> {
    let filter = EnvFilter::try_new(&log.filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on standard error, too, that nothing can be written there, and panic.
        .log_internal_errors(false);
    match log.format {
        LogFormat::Json => builder.json().finish().try_init()?,
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).finish().try_init()?,
    }
    Ok(())
}

/// Attempts of deliveries, by `outcome`: delivered, retry, exhausted.
pub const DELIVERIES_TOTAL: &str = "darkroom_deliveries_total";
/// How long attempts took, in seconds.
pub const ATTEMPT_SECONDS: &str = "darkroom_delivery_attempt_seconds";
/// From an event to its arrival, in seconds.
pub const LAG_SECONDS: &str = "darkroom_delivery_lag_seconds";
/// Deliveries by where they stand: the ledger.
pub const LEDGER: &str = "darkroom_deliveries";
/// 1 while accepted = delivered + waiting + exhausted + cancelled.
pub const LEDGER_BALANCED: &str = "darkroom_deliveries_balanced";
/// Deliveries that have not arrived, by `state`: waiting, exhausted.
pub const UNDELIVERED: &str = "darkroom_undelivered";
/// How old the oldest of these is, in seconds.
pub const UNDELIVERED_OLDEST: &str = "darkroom_undelivered_oldest_seconds";
/// Destinations that are suspended, disabled or paused.
pub const SUSPENDED: &str = "darkroom_destination_suspended";
/// Jobs that wait for a worker.
pub const QUEUE_DEPTH: &str = "darkroom_queue_depth";
/// Jobs whose picture waits to be fetched.
pub const FETCH_QUEUE_DEPTH: &str = "darkroom_fetch_queue_depth";
/// Jobs that have ended, by `status`.
pub const JOBS_TOTAL: &str = "darkroom_jobs_total";

/// Imaging processes that are alive.
pub const IMAGING_PROCESSES: &str = "darkroom_imaging_processes";
/// Imaging processes that were replaced, by `reason`: died, killed (a deadline, or the job was called off), worn, rested (it
/// gave back the memory of its last picture).
pub const IMAGING_RESTARTS: &str = "darkroom_imaging_restarts_total";
/// Memory that is reserved for the pictures in work, in bytes.
pub const IMAGING_MEMORY_USED: &str = "darkroom_imaging_memory_used_bytes";
/// Memory that can be, in bytes.
pub const IMAGING_MEMORY_BUDGET: &str = "darkroom_imaging_memory_budget_bytes";

/// When the certificate that is served expires, in seconds since 1970.
pub const CERTIFICATE_EXPIRY: &str = "darkroom_tls_certificate_not_after_seconds";
/// Connections without a request that made room for new ones.
pub const CONNECTIONS_EVICTED: &str = "darkroom_http_connections_evicted_total";
/// From a request's header to its answer's, in seconds, by `route`, `method` and `status`.
pub const HTTP_REQUEST_SECONDS: &str = "darkroom_http_request_seconds";

/// Upper bounds in seconds, from a receiver next door to the longest deadline.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// What has been counted, as Prometheus reads it. Counting begins with the first call.
pub fn metrics() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE.get_or_init(install).as_ref()
}

fn install() -> Option<PrometheusHandle> {
    let builder = PrometheusBuilder::new().set_buckets(&BUCKETS);
    let recorder = match builder {
        Ok(builder) => builder.build_recorder(),
        Err(error) => {
            tracing::error!(%error, "nothing is counted");
            return None;
        }
    };
    let handle = recorder.handle();
    if metrics::set_global_recorder(recorder).is_err() {
        tracing::error!("nothing is counted: something else does that in this process");
        return None;
    }
    describe_counter!(DELIVERIES_TOTAL, "Attempts of deliveries by outcome");
    describe_histogram!(ATTEMPT_SECONDS, Unit::Seconds, "How long attempts took");
    describe_histogram!(LAG_SECONDS, Unit::Seconds, "From an event to its arrival");
    describe_gauge!(LEDGER, "Deliveries by where they stand");
    describe_gauge!(LEDGER_BALANCED, "1 while every delivery is accounted for");
    describe_gauge!(UNDELIVERED, "Deliveries that have not arrived");
    describe_gauge!(UNDELIVERED_OLDEST, Unit::Seconds, "How old the oldest of these is");
    describe_gauge!(SUSPENDED, "Destinations that are suspended, disabled or paused");
    describe_gauge!(QUEUE_DEPTH, "Jobs that wait for a worker");
    describe_gauge!(FETCH_QUEUE_DEPTH, "Jobs whose picture waits to be fetched");
    describe_counter!(JOBS_TOTAL, "Jobs that have ended, by status");
    describe_gauge!(IMAGING_PROCESSES, "Imaging processes that are alive");
    describe_counter!(IMAGING_RESTARTS, "Imaging processes that were replaced, by reason");
    describe_gauge!(IMAGING_MEMORY_USED, Unit::Bytes, "Memory reserved for the pictures in work");
    describe_gauge!(IMAGING_MEMORY_BUDGET, Unit::Bytes, "Memory that can be reserved for pictures");
    describe_gauge!(
        CERTIFICATE_EXPIRY,
        Unit::Seconds,
        "When the certificate that is served expires, since 1970"
    );
    describe_counter!(CONNECTIONS_EVICTED, "Connections without a request that made room for new ones");
    describe_histogram!(HTTP_REQUEST_SECONDS, Unit::Seconds, "From a request's header to its answer's");
    Some(handle)
}
