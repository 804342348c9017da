//! Typed configuration: compiled-in defaults < `--dev` < file < environment < flags, validated once.
//!
//! Every key is documented in `config/default.toml`, which is compiled in.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use config::{Environment, File, FileFormat};
use serde::Deserialize;

use crate::domain::destination::BreakerPolicy;
use crate::domain::dispatch::DispatchPolicy;
use crate::domain::image::Watermarks;

mod callbacks;
mod limits;
mod presets;
mod server;
mod source;
mod storage;
mod watermarks;

pub use callbacks::Callbacks;
pub use limits::Limits;
pub use presets::Preset;
pub use server::Server;
pub use source::Source;
pub use storage::{Hidden, Storage};
pub use watermarks::Watermark;

/// The defaults, which are also the documentation.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// What `--dev` changes of the defaults: callbacks and sources over plain http and on this machine, a log for people.
const DEV: &str = r#"
[callbacks]
allow_http = true
allow_networks = ["127.0.0.0/8", "::1/128"]
[source]
allow_http = true
allow_networks = ["127.0.0.0/8", "::1/128"]
[log]
format = "text"
"#;

/// What the environment's keys begin with.
const ENV_PREFIX: &str = "DARKROOM";
/// The command line's own variables.
const OTHER_VARIABLES: [&str; 3] = ["DARKROOM_URL", "DARKROOM_TOKEN", "DARKROOM_SECRET"];
/// What those of the tests begin with.
const OTHER_PREFIXES: [&str; 2] = ["DARKROOM_TEST_", "DARKROOM_POWER_"];

/// Times beyond it are mistakes, and arithmetic with them stays in range.
const DAY_MS: u64 = 24 * 3600 * 1000;
const YEAR_MS: u64 = 366 * DAY_MS;

/// The whole configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `--dev`: no API keys, so nobody but this machine.
    #[serde(skip)]
    pub dev: bool,
    /// The HTTP server.
    pub server: Server,
    /// What lasts.
    pub storage: Storage,
    /// Jobs that wait and jobs that run.
    pub queue: Queue,
    /// What one client may use.
    pub limits: Limits,
    /// Pictures that are fetched.
    pub source: Source,
    /// How long things are kept.
    pub retention: Retention,
    /// What a picture may cost.
    pub imaging: Imaging,
    /// Deliveries over HTTP.
    pub callbacks: Callbacks,
    /// What one destination may take.
    pub destinations: Destinations,
    /// Variants under a name.
    pub presets: HashMap<String, Preset>,
    /// What variants can have drawn on them.
    pub watermarks: BTreeMap<String, Watermark>,
    /// What was read of their files.
    #[serde(skip)]
    watermarks_read: Watermarks,
    /// What is logged.
    pub log: Log,
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
    pub undelivered_ms: u64,
    pub audit_ms: u64,
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
    pub presets_only: bool,
    pub memory_mib: u32,
    pub isolation: Isolation,
    /// The program of the imaging processes; `None`: this one.
    #[serde(skip)]
    pub program: Option<PathBuf>,
}

/// Where pictures are decoded and encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// In processes of their own, which can be killed.
    Process,
    /// On threads of the service.
    Thread,
}

/// Section `[destinations]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Destinations {
    pub concurrency: u32,
    pub initial_concurrency: u32,
    pub rate_per_second: u32,
    pub breaker_window_ms: u64,
    pub breaker_min_samples: u32,
    pub breaker_failure_ratio: f64,
    pub breaker_open_ms: u64,
    pub breaker_max_open_ms: u64,
    pub suspend_after_ms: u64,
    pub suspended_probe_ms: u64,
}

/// Section `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "documented in config/default.toml")]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
    pub access: bool,
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
#[derive(Clone, Default)]
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

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dev, file, environment, flags } = self;
        // A value may be a secret; the names are none.
        f.debug_struct("Sources")
            .field("dev", dev)
            .field("file", file)
            .field("environment", &environment.keys())
            .field("flags", &flags.iter().map(|(key, _)| key).collect::<Vec<_>>())
            .finish()
    }
}

/// The configuration cannot be used. The text names the key, not a secret's value.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A source cannot be read, or has an unknown key or a value of the wrong type.
    #[error("configuration: {0}")]
    Read(#[from] config::ConfigError),
    /// A variable that begins as ours do, and is none of them.
    #[error(
        "configuration: the environment variable {name} is unknown; keys of the configuration are written \
         {ENV_PREFIX}_SECTION__KEY, with two underscores between section and key"
    )]
    UnknownVariable {
        /// Its name.
        name: String,
    },
    /// A preset cannot be used.
    #[error("configuration: presets.{name}: {problem}")]
    Preset {
        /// Which one.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A watermark cannot be used.
    #[error("configuration: watermarks.{name}: {problem}")]
    Watermark {
        /// Which one.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
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
    /// Reads all sources and the files that they name, and checks the values.
    pub fn load(sources: Sources) -> Result<Self, ConfigError> {
        let environment = keys_of(sources.environment)?;
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
                .with_list_parse_key("server.cors_origins")
                .with_list_parse_key("callbacks.allow_networks")
                .with_list_parse_key("callbacks.allow_hosts")
                .with_list_parse_key("callbacks.handshake_hosts")
                .with_list_parse_key("source.allow_networks")
                .with_list_parse_key("source.allow_hosts")
                .with_list_parse_key("storage.previous_encryption_keys")
                .source(Some(environment)),
        );
        for (key, value) in sources.flags {
            builder = builder.set_override(key, value)?;
        }
        let read = builder.build()?;
        let mut config = Self { dev: sources.dev, ..read.clone().try_deserialize()? };
        config.watermarks_read = watermarks::read(&config.watermarks)?;
        config.validate()?;
        config.require_whole_numbers(&read)?;
        Ok(config)
    }

    /// The numbers that would stop the service, or make it useless, outside of these bounds.
    #[rustfmt::skip]
    fn bounded(&self) -> [(&'static str, u64, RangeInclusive<u64>); 41] {
        let Self { storage, queue, source, retention, imaging, callbacks, destinations, .. } = self;
        [
            ("storage.cache_mib", storage.cache_mib, 1..=1 << 20),
            ("storage.reserve_mib", storage.reserve_mib, 0..=1 << 30),
            ("queue.capacity", queue.capacity, 1..=1_000_000_000),
            ("queue.lease_ms", queue.lease_ms, 1..=YEAR_MS),
            ("queue.heartbeat_ms", queue.heartbeat_ms, 1..=YEAR_MS),
            ("queue.max_tries", queue.max_tries.into(), 1..=1000),
            ("queue.retry_delay_ms", queue.retry_delay_ms, 0..=DAY_MS),
            ("source.capacity", source.capacity, 1..=1_000_000_000),
            ("source.timeout_ms", source.timeout_ms, 1..=DAY_MS),
            ("source.connect_timeout_ms", source.connect_timeout_ms, 1..=DAY_MS),
            ("source.first_byte_timeout_ms", source.first_byte_timeout_ms, 1..=DAY_MS),
            ("source.concurrency", source.concurrency as u64, 1..=10_000),
            ("source.per_origin", source.per_origin as u64, 1..=10_000),
            ("source.max_tries", source.max_tries.into(), 1..=1000),
            ("source.retry_initial_ms", source.retry_initial_ms, 1..=YEAR_MS),
            ("source.retry_max_ms", source.retry_max_ms, 1..=YEAR_MS),
            ("retention.finished_ms", retention.finished_ms, 0..=100 * YEAR_MS),
            ("retention.deleted_ms", retention.deleted_ms, 0..=100 * YEAR_MS),
            ("retention.undelivered_ms", retention.undelivered_ms, 0..=100 * YEAR_MS),
            ("retention.audit_ms", retention.audit_ms, 0..=100 * YEAR_MS),
            ("retention.interval_ms", retention.interval_ms, 1..=DAY_MS),
            ("imaging.threads", imaging.threads as u64, 0..=1024),
            ("imaging.max_pixels", imaging.max_pixels, 1..=1 << 40),
            ("imaging.max_side", imaging.max_side.into(), 1..=1 << 20),
            ("imaging.max_time_ms", imaging.max_time_ms, 1..=DAY_MS),
            ("imaging.memory_mib", imaging.memory_mib.into(), 64..=1 << 30),
            ("callbacks.timeout_ms", callbacks.timeout_ms, 1..=DAY_MS),
            ("callbacks.connect_timeout_ms", callbacks.connect_timeout_ms, 1..=DAY_MS),
            ("callbacks.concurrency", callbacks.concurrency as u64, 1..=100_000),
            ("callbacks.max_attempts", callbacks.max_attempts.into(), 1..=1000),
            ("callbacks.retry_initial_ms", callbacks.retry_initial_ms, 1..=YEAR_MS),
            ("callbacks.retry_max_ms", callbacks.retry_max_ms, 1..=YEAR_MS),
            ("destinations.concurrency", destinations.concurrency.into(), 1..=100_000),
            ("destinations.initial_concurrency", destinations.initial_concurrency.into(), 1..=100_000),
            ("destinations.rate_per_second", destinations.rate_per_second.into(), 0..=1_000_000),
            ("destinations.breaker_window_ms", destinations.breaker_window_ms, 1..=DAY_MS),
            ("destinations.breaker_min_samples", destinations.breaker_min_samples.into(), 1..=1_000_000),
            ("destinations.breaker_open_ms", destinations.breaker_open_ms, 1..=DAY_MS),
            ("destinations.breaker_max_open_ms", destinations.breaker_max_open_ms, 1..=DAY_MS),
            ("destinations.suspend_after_ms", destinations.suspend_after_ms, 1..=YEAR_MS),
            ("destinations.suspended_probe_ms", destinations.suspended_probe_ms, 1..=YEAR_MS),
        ]
    }

    /// The library rounds, and half an attempt a second would be none, which is no bound at all.
    fn require_whole_numbers(&self, read: &config::Config) -> Result<(), ConfigError> {
        for (key, ..) in self.bounded().into_iter().chain(self.server.bounded()).chain(self.limits.bounded())
        {
            let is_whole = !matches!(read.get::<config::Value>(key)?.kind, config::ValueKind::Float(_));
            require(is_whole, key, || "must be a whole number".to_owned())?;
        }
        Ok(())
    }

    fn validate(&self) -> Result<(), ConfigError> {
        for (key, value, bounds) in
            self.bounded().into_iter().chain(self.server.bounded()).chain(self.limits.bounded())
        {
            let (least, most) = (bounds.start(), bounds.end());
            require(bounds.contains(&value), key, || format!("must be from {least} to {most}"))?;
        }
        require(self.queue.lease_ms >= 2 * self.queue.heartbeat_ms, "queue.lease_ms", || {
            "must be at least twice queue.heartbeat_ms".to_owned()
        })?;
        require(
            (1.0..=100.0).contains(&self.callbacks.retry_multiplier),
            "callbacks.retry_multiplier",
            || "must be from 1 to 100".to_owned(),
        )?;
        require(
            (0.01..=1.0).contains(&self.destinations.breaker_failure_ratio),
            "destinations.breaker_failure_ratio",
            || "must be from 0.01 to 1".to_owned(),
        )?;
        self.server.validate()?;
        self.storage.validate()?;
        self.presets()?;
        self.source.validate()?;
        self.callbacks.validate()
    }
}

/// The variables that are keys of the configuration. A name that is neither such a key nor known is a mistake,
/// which must not pass for a setting.
fn keys_of(environment: HashMap<String, String>) -> Result<HashMap<String, String>, ConfigError> {
    let is_key = |name: &str| name.contains("__");
    let is_known = |name: &str| {
        OTHER_VARIABLES.contains(&name) || OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    let ours = |name: &str| name.starts_with(ENV_PREFIX) && name[ENV_PREFIX.len()..].starts_with('_');
    let mut names: Vec<_> = environment.keys().filter(|name| ours(name)).collect();
    // The same one is named each time.
    names.sort_unstable();
    match names.into_iter().find(|name| !is_key(name) && !is_known(name)) {
        Some(name) => Err(ConfigError::UnknownVariable { name: name.clone() }),
        None => Ok(environment.into_iter().filter(|(name, _)| is_key(name) && !is_known(name)).collect()),
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
        crate::domain::image::Limits { max_pixels: self.max_pixels, max_side: self.max_side }
    }
}

impl Config {
    /// What one destination may take, and all that are not known to be well.
    #[must_use]
    pub fn dispatch_policy(&self) -> DispatchPolicy {
        let own = &self.destinations;
        DispatchPolicy {
            per_destination: own.concurrency,
            at_first: own.initial_concurrency,
            // The other half is for those that take their callbacks.
            unproven: self.callbacks.concurrency.div_ceil(2),
            rate_per_second: own.rate_per_second,
            breaker: BreakerPolicy {
                window: Duration::from_millis(own.breaker_window_ms),
                min_samples: own.breaker_min_samples,
                failure_ratio: own.breaker_failure_ratio,
                open_for: Duration::from_millis(own.breaker_open_ms),
                max_open_for: Duration::from_millis(own.breaker_max_open_ms),
                suspend_after: Duration::from_millis(own.suspend_after_ms),
                suspended_probe: Duration::from_millis(own.suspended_probe_ms),
            },
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
        assert!(!config.source.allow_http && config.source.allow_networks.is_empty());
        let dev = Config::load(Sources { dev: true, ..Sources::default() }).unwrap();
        assert!(dev.callbacks.allow_http && dev.callbacks.allow_networks.len() == 2);
        assert!(dev.source.allow_http && dev.source.allow_networks.len() == 2);
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
        let lease = Sources { flags: vec![("queue.lease_ms", "1".to_owned())], ..Sources::default() };
        assert!(problem(lease).contains("queue.lease_ms"));
        let secret =
            Sources { flags: vec![("callbacks.signing_secret", "hunter2".to_owned())], ..Sources::default() };
        let text = problem(secret);
        assert!(text.contains("callbacks.signing_secret") && !text.contains("hunter2"), "{text}");
        for proxy in [
            "proxy:3128",
            "socks5://u:hunter2@proxy",
            "http://u:hunter2@proxy/p",
            "http://proxy:0",
            "http://",
        ] {
            let flags = vec![("callbacks.egress_proxy", proxy.to_owned())];
            let text = problem(Sources { flags, ..Sources::default() });
            assert!(text.contains("callbacks.egress_proxy") && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn a_number_out_of_its_bounds_is_named_with_them() {
        for (key, value, told) in [
            ("queue.capacity", "0", "from 1 to 1000000000"),
            ("source.per_origin", "16", "less than source.concurrency, or 1"),
            ("server.max_connections", "18446744073709551615", "from 1 to 1000000"),
            ("callbacks.concurrency", "2305843009213693952", "from 1 to 100000"),
            ("callbacks.connect_timeout_ms", "0", "from 1 to"),
            ("imaging.max_time_ms", "0", "from 1 to"),
            ("queue.heartbeat_ms", "9223372036854775808", "from 1 to"),
            ("server.drain_timeout_ms", "18446744073709551615", "from 0 to"),
        ] {
            let text = problem(Sources { flags: vec![(key, value.to_owned())], ..Sources::default() });
            assert!(text.contains(&format!("configuration: {key} must be {told}")), "{text}");
        }
    }

    #[test]
    fn a_fraction_is_not_rounded_to_a_whole_number() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("darkroom.toml");
        std::fs::write(&file, "[destinations]\nrate_per_second = 0.4\n").unwrap();
        let (name, flag) = ("DARKROOM_DESTINATIONS__RATE_PER_SECOND", "destinations.rate_per_second");
        for sources in [
            Sources { file: Some(file), ..Sources::default() },
            Sources { environment: environment(&[(name, "0.4")]), ..Sources::default() },
            Sources { flags: vec![(flag, "0.4".to_owned())], ..Sources::default() },
        ] {
            assert!(problem(sources).contains("rate_per_second"));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let hosts = |name: &str, hosts| Sources {
            environment: environment(&[(&*format!("DARKROOM_CALLBACKS__{name}"), hosts)]),
            ..Sources::default()
        };
        for wrong in
            ["*", "http://x/", "10.0.0.1:80", "a,", "[\"10.0.0.1\",\"10.0.0.2\"]", "[10.0.0.1, 10.0.0.2]"]
        {
            assert!(problem(hosts("ALLOW_HOSTS", wrong)).contains("callbacks.allow_hosts"), "{wrong}");
        }
        for right in ["a.internal", "10.0.0.1,fd00::1,[fd00::2]"] {
            assert!(Config::load(hosts("ALLOW_HOSTS", right)).is_ok(), "{right}");
        }
        assert!(Config::load(hosts("HANDSHAKE_HOSTS", "*")).is_ok());
    }

    #[test]
    fn a_variable_that_is_none_of_ours_is_refused() {
        let refused =
            |name: &str| problem(Sources { environment: environment(&[(name, "5")]), ..Sources::default() });
        for name in ["DARKROOM_QUEUE_CAPACITY", "DARKROOM_TOKNE", "DARKROOM_"] {
            let text = refused(name);
            assert!(text.contains(name) && text.contains("DARKROOM_SECTION__KEY"), "{text}");
        }
        assert!(refused("DARKROOM__QUEUE__CAPACITY").contains("_queue"));
        let others =
            ["DARKROOM_TOKEN", "DARKROOM_SECRET", "DARKROOM_TEST_PYTHON", "DARKROOM_POWER_X__Y", "DARKROOMS"];
        let others = environment(&others.map(|name| (name, "5")));
        assert!(Config::load(Sources { environment: others, ..Sources::default() }).is_ok());
    }

    #[test]
    fn secrets_do_not_show() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let proxy = "http://user:MfKQ@proxy.internal:3128";
        let flags = vec![
            ("callbacks.signing_secret", secret.to_owned()),
            ("callbacks.egress_proxy", proxy.to_owned()),
        ];
        let environment = environment(&[("DARKROOM_CALLBACKS__SIGNING_SECRET", secret)]);
        let sources = Sources { flags, environment, ..Sources::default() };
        let shown = format!("{sources:?}");
        assert!(!shown.contains("MfKQ") && shown.contains("callbacks.signing_secret"), "{shown}");
        let config = Config::load(sources).unwrap();
        assert_eq!(config.callbacks.signing_secret, secret);
        assert_eq!(config.callbacks.egress_proxy().unwrap().password(), Some("MfKQ"));
        assert!(!format!("{config:?}").contains("MfKQ"));
    }
}
