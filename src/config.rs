//! Typed configuration: compiled-in defaults < `--dev` < file < environment < flags, validated once.
//!
//! Every key is documented in `config/default.toml`, which is compiled in.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{Environment, File, FileFormat};
use ipnet::IpNet;
use serde::Deserialize;
use url::Url;

/// The defaults, which are also the documentation.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// What `--dev` changes of the defaults: plain http and loopback callbacks, a log for people.
const DEV: &str = r#"
[callbacks]
allow_http = true
allow_networks = ["127.0.0.0/8", "::1/128"]
[log]
format = "text"
"#;

/// What the environment's keys begin with.
const ENV_PREFIX: &str = "DARKROOM";

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The HTTP server.
    pub server: Server,
    /// What lasts.
    pub storage: Storage,
    /// Jobs that wait and jobs that run.
    pub queue: Queue,
    /// How long things are kept.
    pub retention: Retention,
    /// What a picture may cost.
    pub imaging: Imaging,
    /// Deliveries over HTTP.
    pub callbacks: Callbacks,
    /// What is logged.
    pub log: Log,
}

/// Section `[server]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Server {
    pub listen: SocketAddr,
    pub public_base_url: String,
    pub header_timeout_ms: u64,
    pub body_idle_timeout_ms: u64,
    pub body_timeout_ms: u64,
    pub max_upload_bytes: u64,
    pub drain_timeout_ms: u64,
    pub max_connections: usize,
}

/// Section `[storage]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Storage {
    pub data_dir: PathBuf,
    pub cache_mib: u64,
}

/// Section `[queue]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Queue {
    pub capacity: u64,
    pub lease_ms: u64,
    pub heartbeat_ms: u64,
    pub max_tries: u32,
    pub retry_delay_ms: u64,
}

/// Section `[retention]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Retention {
    pub finished_ms: u64,
    pub deleted_ms: u64,
    pub interval_ms: u64,
}

/// Section `[imaging]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Imaging {
    pub threads: usize,
    pub max_pixels: u64,
    pub max_side: u32,
    pub max_time_ms: u64,
}

/// Section `[callbacks]`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Callbacks {
    pub timeout_ms: u64,
    pub connect_timeout_ms: u64,
    pub concurrency: usize,
    pub max_attempts: u32,
    pub retry_initial_ms: u64,
    pub retry_multiplier: f64,
    pub retry_max_ms: u64,
    pub allow_http: bool,
    pub allow_networks: Vec<IpNet>,
    pub allow_hosts: Vec<String>,
    pub signing_secret: String,
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { signing_secret: _, allow_http, allow_networks, allow_hosts, max_attempts, .. } = self;
        f.debug_struct("Callbacks")
            .field("allow_http", allow_http)
            .field("allow_networks", allow_networks)
            .field("allow_hosts", allow_hosts)
            .field("max_attempts", max_attempts)
            .finish_non_exhaustive()
    }
}

/// Section `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where the configuration comes from, besides the defaults.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--dev`
    pub dev: bool,
    /// `--config`
    pub file: Option<PathBuf>,
    /// The process's environment.
    pub environment: HashMap<String, String>,
    /// Flags: a key such as `server.listen`, and its value.
    pub flags: Vec<(&'static str, String)>,
}

/// The configuration cannot be used. The text names the key, not a secret's value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source cannot be read, or has an unknown key or a value of the wrong type.
    #[error("configuration: {0}")]
    Read(#[from] config::ConfigError),
    /// A value is out of range.
    #[error("configuration: {key} {problem}")]
    Invalid {
        /// Which key.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Config {
    /// Reads all sources and checks the values.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        // DARKROOM_URL and DARKROOM_TOKEN are the command line's, not keys of a section.
        let environment = sources
            .environment
            .into_iter()
            .filter(|(name, _)| name.contains("__"))
            .collect::<HashMap<_, _>>();
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if sources.dev {
            builder = builder.add_source(File::from_str(DEV, FileFormat::Toml));
        }
        if let Some(file) = &sources.file {
            builder = builder.add_source(File::new(&file.to_string_lossy(), FileFormat::Toml));
        }
        builder = builder.add_source(
            Environment::with_prefix(ENV_PREFIX)
                .prefix_separator("_")
                .separator("__")
                .try_parsing(true)
                .list_separator(",")
                .with_list_parse_key("callbacks.allow_networks")
                .with_list_parse_key("callbacks.allow_hosts")
                .source(Some(environment)),
        );
        for (key, value) in sources.flags {
            builder = builder.set_override(key, value)?;
        }
        let config: Self = builder.build()?.try_deserialize()?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let positive: [(&'static str, u64); 13] = [
            ("server.header_timeout_ms", self.server.header_timeout_ms),
            ("server.body_idle_timeout_ms", self.server.body_idle_timeout_ms),
            ("server.body_timeout_ms", self.server.body_timeout_ms),
            ("server.max_upload_bytes", self.server.max_upload_bytes),
            ("server.max_connections", self.server.max_connections as u64),
            ("queue.capacity", self.queue.capacity),
            ("queue.heartbeat_ms", self.queue.heartbeat_ms),
            ("queue.max_tries", self.queue.max_tries.into()),
            ("retention.interval_ms", self.retention.interval_ms),
            ("callbacks.timeout_ms", self.callbacks.timeout_ms),
            ("callbacks.concurrency", self.callbacks.concurrency as u64),
            ("callbacks.max_attempts", self.callbacks.max_attempts.into()),
            ("callbacks.retry_initial_ms", self.callbacks.retry_initial_ms),
        ];
        for (key, value) in positive {
            require(value > 0, key, || "must be greater than 0".to_owned())?;
        }
        require(self.queue.lease_ms >= 2 * self.queue.heartbeat_ms, "queue.lease_ms", || {
            "must be at least twice queue.heartbeat_ms".to_owned()
        })?;
        require(
            (1.0..=100.0).contains(&self.callbacks.retry_multiplier),
            "callbacks.retry_multiplier",
            || "must be from 1 to 100".to_owned(),
        )?;
        // A year: times beyond it are mistakes, and arithmetic with them stays in range.
        let year = 366 * 24 * 3600 * 1000;
        for (key, value) in
            [("callbacks.retry_max_ms", self.callbacks.retry_max_ms), ("queue.lease_ms", self.queue.lease_ms)]
        {
            require(value <= year, key, || "must be at most a year".to_owned())?;
        }
        let base = self.server.public_base_url.as_str();
        let base_ok = base.is_empty()
            || Url::parse(base)
                .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.query().is_none());
        require(base_ok, "server.public_base_url", || {
            "must be an http or https URL without a query".to_owned()
        })?;
        let secret = self.callbacks.signing_secret.as_str();
        let secret_ok = secret.is_empty() || secret.parse::<crate::domain::secret::SigningSecret>().is_ok();
        require(secret_ok, "callbacks.signing_secret", || crate::domain::secret::SecretError.to_string())
    }
}

fn require(holds: bool, key: &'static str, problem: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::Invalid { key, problem: problem() }) }
}

impl Imaging {
    /// How many threads run imaging.
    #[must_use]
    pub fn thread_count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.threads)
            .or_else(|| std::thread::available_parallelism().ok())
            .unwrap_or(NonZeroUsize::MIN)
    }

    /// The limits as imaging takes them.
    #[must_use]
    pub fn limits(&self) -> crate::domain::image::Limits {
        crate::domain::image::Limits {
            max_pixels: self.max_pixels,
            max_side: self.max_side,
            max_time: Duration::from_millis(self.max_time_ms),
        }
    }
}

impl Callbacks {
    /// The schedule of attempts.
    #[must_use]
    pub fn retry_policy(&self) -> crate::domain::retry::RetryPolicy {
        crate::domain::retry::RetryPolicy {
            initial: Duration::from_millis(self.retry_initial_ms),
            multiplier: self.retry_multiplier,
            max_delay: Duration::from_millis(self.retry_max_ms),
            max_attempts: self.max_attempts,
        }
    }
}

impl Queue {
    /// The schedule of tries of a job.
    #[must_use]
    pub fn retry_policy(&self) -> crate::domain::retry::RetryPolicy {
        crate::domain::retry::RetryPolicy {
            initial: Duration::from_millis(self.retry_delay_ms),
            multiplier: 2.0,
            max_delay: Duration::from_secs(60),
            max_attempts: self.max_tries,
        }
    }
}

impl Storage {
    /// Where the store's files are.
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.data_dir.join("store")
    }

    /// Where the pictures are.
    #[must_use]
    pub fn blobs_dir(&self) -> PathBuf {
        self.data_dir.join("blobs")
    }

    /// Where a signing secret that was made here is kept.
    #[must_use]
    pub fn signing_secret_file(&self) -> PathBuf {
        Path::new(&self.data_dir).join("signing-secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> HashMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn problem(sources: Sources) -> String {
        Config::load(sources).unwrap_err().to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_dev_allows_loopback() {
        let config = Config::load(Sources::default()).unwrap();
        assert!(!config.callbacks.allow_http && config.callbacks.allow_networks.is_empty());
        let dev = Config::load(Sources { dev: true, ..Sources::default() }).unwrap();
        assert!(dev.callbacks.allow_http && dev.callbacks.allow_networks.len() == 2);
        assert_eq!(dev.log.format, LogFormat::Text);
    }

    #[test]
    fn file_then_environment_then_flags() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("darkroom.toml");
        std::fs::write(&file, "[queue]\ncapacity = 1\nmax_tries = 7\n[server]\nlisten = \"127.0.0.1:1\"\n")
            .unwrap();
        let config = Config::load(Sources {
            file: Some(file),
            environment: environment(&[
                ("DARKROOM_QUEUE__CAPACITY", "2"),
                ("DARKROOM_SERVER__LISTEN", "127.0.0.1:2"),
                ("DARKROOM_CALLBACKS__ALLOW_HOSTS", "a.internal,b.internal"),
                ("DARKROOM_URL", "http://127.0.0.1:1"),
            ]),
            flags: vec![("server.listen", "127.0.0.1:3".to_owned())],
            ..Sources::default()
        })
        .unwrap();
        assert_eq!((config.queue.capacity, config.queue.max_tries), (2, 7));
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.callbacks.allow_hosts, ["a.internal", "b.internal"]);
    }

    #[test]
    fn mistakes_are_named() {
        let unknown =
            Sources { environment: environment(&[("DARKROOM_QUEUE__CAPACTIY", "2")]), ..Sources::default() };
        assert!(problem(unknown).contains("capactiy"));
        let missing = Sources { file: Some("no-such-file.toml".into()), ..Sources::default() };
        assert!(problem(missing).contains("no-such-file.toml"));
        let zero = Sources { flags: vec![("queue.capacity", "0".to_owned())], ..Sources::default() };
        assert!(problem(zero).contains("queue.capacity must be greater than 0"));
        let lease = Sources { flags: vec![("queue.lease_ms", "1".to_owned())], ..Sources::default() };
        assert!(problem(lease).contains("queue.lease_ms"));
        let secret =
            Sources { flags: vec![("callbacks.signing_secret", "hunter2".to_owned())], ..Sources::default() };
        let text = problem(secret);
        assert!(text.contains("callbacks.signing_secret") && !text.contains("hunter2"), "{text}");
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let flags = vec![("callbacks.signing_secret", secret.to_owned())];
        let config = Config::load(Sources { flags, ..Sources::default() }).unwrap();
        assert_eq!(config.callbacks.signing_secret, secret);
        assert!(!format!("{config:?}").contains("MfKQ"));
    }
}
