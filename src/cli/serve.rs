//! `darkroom serve`: run the service until a signal stops it.

use std::collections::HashMap;
use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::CliError;
use super::output;
use super::signals::{HangUps, StopSignals};
use crate::clock::Clock;
use crate::config::{Config, Sources};
use crate::{app, telemetry};

const NOTES: &str = "\
Examples:
  darkroom serve --dev
  darkroom clients create ops --role operator > ops-key && darkroom serve --listen 0.0.0.0:8080
  darkroom serve --dev --listen 127.0.0.1:0 --data-dir /tmp/darkroom
  DARKROOM_QUEUE__CAPACITY=100 darkroom serve --dev --config darkroom.toml

When it is ready, it prints `listening on http://ADDRESS:PORT` (with TLS https://), and nothing else, on standard output.
With TLS, SIGHUP looks at the certificate's files at once, and otherwise server.tls_reload_ms does.
SIGTERM and SIGINT (Ctrl-C) let what is under way come to its end, up to server.drain_timeout_ms; then the exit code \
is 0. A second signal stops at once, with code 1; no accepted job is lost by that.

Configuration: built-in defaults < --config < environment (DARKROOM_SERVER__LISTEN=...) < flags.";

/// How to run the service.
#[derive(clap::Args)]
#[command(after_help = NOTES)]
pub(super) struct Args {
    /// For trying out: loopback only, no API key needed, callbacks to loopback allowed, a log for people
    #[arg(long)]
    dev: bool,
    /// Where to listen; port 0 lets the system choose one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The folder of everything that lasts [default: darkroom-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Speaks TLS with this certificate chain (PEM); needs --tls-key
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<String>,
    /// The private key of --tls-cert (PEM). Changed files are taken over without a restart
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<String>,
    /// A configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) async fn run(args: Args) -> Result<(), CliError> {
    let config = configure(args, environment()?)?;
    telemetry::init(&config.log)?;
    let failed = |source| CliError::io("signals cannot be handled", source);
    // Before the start is announced: from then on, a signal means to drain.
    let mut signals = StopSignals::install().map_err(failed)?;
    let hints = Hints::of(&config);
    // Without TLS it keeps its usual meaning: the terminal is gone, and the process ends.
    let mut hangups = config.server.tls().map(|_| HangUps::install()).transpose().map_err(failed)?;
    let mut running = tokio::select! {
        started = app::start(config, Clock::system()) => started?,
        () = signals.next() => return Err(CliError::Aborted),
    };
    // Whoever started it may not care to read this; the service runs all the same.
    let _ = output::line(&format!("listening on {}", running.local_url()));
    hints.text(running.local_url()).lines().for_each(output::note);

    let result = loop {
        tokio::select! {
            () = signals.next() => break Ok(()),
            part = running.failed() => break Err(CliError::Failed(part)),
            () = HangUps::next(hangups.as_mut()) => running.reload_certificate(),
        }
    };
    output::note("stopping when what is under way is done; a second signal stops at once");
    tokio::select! {
        () = running.shutdown() => result,
        () = signals.next() => Err(CliError::Aborted),
    }
}

fn configure(args: Args, environment: HashMap<String, String>) -> Result<Config, CliError> {
    let dev = args.dev;
    let listen = args.listen.map(|address| ("server.listen", address.to_string()));
    let data_dir = args.data_dir.map(|folder| ("storage.data_dir", folder));
    let tls_cert = args.tls_cert.map(|file| ("server.tls_cert", file));
    let tls_key = args.tls_key.map(|file| ("server.tls_key", file));
    let flags = listen.into_iter().chain(data_dir).chain(tls_cert).chain(tls_key).collect();
    let config = Config::load(Sources { dev, file: args.config, environment, flags })?;
    let listen = config.server.listen;
    if dev && !listen.ip().to_canonical().is_loopback() {
        return Err(CliError::Usage(format!(
            "--dev asks for no API key, so it listens on loopback only, and {listen} is not: \
             use 127.0.0.1:{} or [::1]:{}",
            listen.port(),
            listen.port()
        )));
    }
    Ok(config)
}

/// The variables that may concern the configuration. One that cannot be read is refused, not passed over.
pub(super) fn environment() -> Result<HashMap<String, String>, CliError> {
    env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with("DARKROOM_"))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(CliError::Usage(format!("the environment variable {name} is not valid UTF-8"))),
        })
        .collect()
}

/// What someone who tries it out wants to know next.
struct Hints {
    dev: bool,
    data_dir: PathBuf,
    /// Unless the configuration names the secret.
    secret_file: Option<PathBuf>,
}

impl Hints {
    fn of(config: &Config) -> Self {
        let made_here = config.callbacks.signing_secret.is_empty();
        Self {
            dev: config.dev,
            data_dir: config.storage.data_dir.clone(),
            secret_file: made_here.then(|| config.storage.signing_secret_file()),
        }
    }

    fn text(&self, base_url: &str) -> String {
        let listen = match &self.secret_file {
            Some(file) => format!("darkroom listen --secret-file {}", file.display()),
            None => {
                "DARKROOM_SECRET=... darkroom listen    (the secret is callbacks.signing_secret)".to_owned()
            }
        };
        if !self.dev {
            return format!(
                "data in {}; API keys are asked for, see `darkroom clients --help`",
                self.data_dir.display()
            );
        }
        format!(
            "data in {}; no API key is asked for (--dev)\n\
             receive callbacks:  {listen}\n\
             submit a picture:   curl -F callback_url=http://{} -F image=@photo.jpg {base_url}/v1/jobs",
            self.data_dir.display(),
            super::listen::DEFAULT_LISTEN,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::error::USAGE;

    fn args(dev: bool, listen: &str) -> Args {
        Args {
            dev,
            listen: listen.parse().ok(),
            data_dir: Some("data".to_owned()),
            tls_cert: None,
            tls_key: None,
            config: None,
        }
    }

    #[test]
    fn without_dev_it_may_listen_anywhere() {
        assert!(configure(args(false, "0.0.0.0:0"), HashMap::new()).is_ok());
    }

    #[test]
    fn dev_stays_on_loopback_whoever_names_the_address() {
        for listen in ["127.0.0.1:0", "[::1]:0", "127.1.2.3:80"] {
            assert!(configure(args(true, listen), HashMap::new()).is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:0", "[::]:0", "192.168.0.1:80"] {
            let error = configure(args(true, listen), HashMap::new()).unwrap_err();
            assert_eq!(error.exit_code(), USAGE, "{listen}");
        }
        let environment = HashMap::from([("DARKROOM_SERVER__LISTEN".to_owned(), "0.0.0.0:80".to_owned())]);
        assert!(configure(args(true, ""), environment).is_err());
    }

    #[test]
    fn hints_name_the_secrets_file_and_never_the_secret() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let variable = ("DARKROOM_CALLBACKS__SIGNING_SECRET".to_owned(), secret.to_owned());
        let configured = configure(args(true, ""), HashMap::from([variable])).unwrap();
        let text = Hints::of(&configured).text("http://127.0.0.1:1");
        assert!(text.contains("callbacks.signing_secret") && !text.contains(secret), "{text}");
        let made_here = configure(args(true, ""), HashMap::new()).unwrap();
        assert!(Hints::of(&made_here).text("http://127.0.0.1:1").contains("signing-secret"));
    }
}
