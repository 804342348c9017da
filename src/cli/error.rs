//! Why a command fails, and the exit code that says so to a script.

use std::error::Error;
use std::io;
use std::time::Duration;

use url::Url;

use super::output::printable;
use super::problem::Problem;
use crate::app::{self, StartError};
use crate::config::ConfigError;
use crate::telemetry::InitError;

/// The exit codes besides 0; they are part of the contract.
pub(super) const FAILURE: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const NOT_FOUND: u8 = 3;
pub(super) const JOB_FAILED: u8 = 4;
pub(super) const TIMED_OUT: u8 = 5;
pub(super) const REFUSED: u8 = 6;

/// Why a command fails.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// What was asked for cannot be done.
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the log cannot be set up")]
    Log(#[from] InitError),
    #[error("the service cannot start")]
    Start(#[from] StartError),
    /// A fault of ours took a part of the service away, and the rest was shut down.
    #[error(
        "{0} ended by a fault of its own, which the log has; what was accepted goes on at the next start"
    )]
    Failed(&'static str),
    #[error("{}", printable(&.0.to_string()))]
    Backup(#[from] app::backup::Error),
    /// A second signal, while the service drained.
    #[error("stopped at once; what was accepted goes on at the next start")]
    Aborted,
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// A file, or standard input, that the command was told to read.
    #[error("{what}")]
    Input { what: String, source: io::Error },
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// What was made cannot be asked for again, so that this is no mere lack of a reader.
    #[error(
        "the secret was rotated, and the new one signs, but it cannot be written to standard output; \
         find it in the file signing-secret of the service's data folder, or rotate once more"
    )]
    SecretUnseen(#[source] io::Error),
    #[error(
        "cannot reach {url}: {cause}\n\
         Start a service with `darkroom serve --dev`, or name another one with --url or DARKROOM_URL."
    )]
    Unreachable { url: Url, cause: String },
    #[error("{url} does not answer in time")]
    NoAnswer { url: Url },
    /// The connection broke, or what came was no HTTP.
    #[error("the request to {url} failed: {cause}")]
    Transport { url: Url, cause: String },
    /// The service refused, and said why.
    #[error("{0}")]
    Api(Box<Problem>),
    /// The answer is not what the contract says.
    #[error("the answer of {url} cannot be used: {}", printable(problem))]
    BadAnswer { url: Url, problem: String },
    #[error("the service offers no link `{0}` here")]
    MissingLink(&'static str),
    /// The root has all links that this caller ever gets.
    #[error("the service offers no link `{0}`: it is for operators, or the service is of another version")]
    NotOffered(&'static str),
    #[error("{url} asks for an API key: --token or DARKROOM_TOKEN; `darkroom clients create` makes one")]
    NoKey { url: Url },
    /// Something that was named is not there.
    #[error("{0}")]
    NoSuch(String),
    #[error(transparent)]
    Clients(#[from] app::clients::Error),
    /// The key cannot be asked for again, so that this is no mere lack of a reader.
    #[error(
        "the key was made, but it cannot be written to standard output; make another with \
         `darkroom clients add-key {name}`, and revoke this one"
    )]
    KeyUnseen { name: String, source: io::Error },
    #[error("{id} is {}: there is nothing to {action}", printable(state))]
    NotNow { id: String, action: &'static str, state: String },
    #[error("{0} is delivered: there is nothing to replay; --force sends it again all the same")]
    Arrived(String),
    /// Some of several, each of which was told of already.
    #[error("{failed} of {of} failed")]
    Several { failed: usize, of: usize, code: u8 },
    /// A token goes to the service that it was given for, and to no other.
    #[error(
        "the service links to {link}, which is not where --url points: the token is not sent there. \
         Use the service's public URL."
    )]
    ForeignLink { link: Url },
    #[error("{id} {}{}", printable(status), printable(reason))]
    JobFailed { id: String, status: String, reason: String },
    #[error("{id} is still {} after {} s; `darkroom jobs watch {id}` goes on watching", printable(status), waited.as_secs())]
    JobTimedOut { id: String, status: String, waited: Duration },
    /// Something that was checked does not hold.
    #[error("{}", printable(.0))]
    Check(String),
    /// The demo has one exit code for all that can go wrong: it held, or it did not.
    #[error("the demo failed: {}", with_causes(.0.as_ref()))]
    Demo(Box<CliError>),
}

impl CliError {
    pub(super) fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }

    pub(super) fn input(what: impl Into<String>, source: io::Error) -> Self {
        Self::Input { what: what.into(), source }
    }

    /// Sorts a failed request by what a person would do about it.
    pub(super) fn request(error: &reqwest::Error, url: &Url) -> Self {
        let url = url.clone();
        if error.is_connect() {
            Self::Unreachable { url, cause: root_cause(error) }
        } else if error.is_timeout() {
            Self::NoAnswer { url }
        } else {
            Self::Transport { url, cause: root_cause(error) }
        }
    }

    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_)
            | Self::Config(_)
            | Self::Log(InitError::Filter(_))
            | Self::Start(StartError::Tls(_))
            | Self::Input { .. }
            | Self::Start(StartError::NoClients(_))
            | Self::ForeignLink { .. } => USAGE,
            Self::NotOffered(_) | Self::NoKey { .. } => REFUSED,
            Self::NoSuch(_) => NOT_FOUND,
            Self::Clients(error) if error.is_not_found() => NOT_FOUND,
            Self::Api(problem) if problem.blames_the_command() => USAGE,
            Self::Api(problem) => match problem.status.as_u16() {
                401 | 403 => REFUSED,
                404 => NOT_FOUND,
                _ => FAILURE,
            },
            Self::Several { code, .. } => *code,
            Self::JobFailed { .. } => JOB_FAILED,
            Self::JobTimedOut { .. } | Self::NoAnswer { .. } => TIMED_OUT,
            _ => FAILURE,
        }
    }

    /// Whether the same request may succeed a moment later: the service restarts, or has too much to do.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::NoAnswer { .. } | Self::Transport { .. } => true,
            Self::Api(problem) => matches!(problem.status.as_u16(), 429 | 502..=504),
            _ => false,
        }
    }

    /// Whether whatever is asked for next will meet the same.
    pub(super) fn concerns_the_service(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::NoAnswer { .. })
    }

    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// The error and what caused it, in one line. A cause that the text before it already tells is left out.
pub(super) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let detail = error.to_string();
        let detail = printable(&detail);
        if !text.contains(&*detail) {
            text = format!("{text}: {detail}");
        }
        cause = error.source();
    }
    text
}

/// The innermost cause: what lies around it says "error sending request" three times over.
fn root_cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    printable(&innermost.to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use reqwest::StatusCode;

    use super::*;

    fn api(status: StatusCode) -> CliError {
        CliError::Api(Box::new(Problem::read(status, None, b"")))
    }

    #[test]
    fn exit_codes_are_those_of_the_contract() {
        let url: Url = "http://127.0.0.1:1/".parse().unwrap();
        let job_failed = CliError::JobFailed {
            id: "job_1".to_owned(),
            status: "failed".to_owned(),
            reason: String::new(),
        };
        for (error, code) in [
            (CliError::Usage(String::new()), 2),
            (api(StatusCode::UNAUTHORIZED), 6),
            (api(StatusCode::FORBIDDEN), 6),
            (api(StatusCode::NOT_FOUND), 3),
            (api(StatusCode::BAD_REQUEST), 2),
            (api(StatusCode::UNPROCESSABLE_ENTITY), 1),
            (api(StatusCode::SERVICE_UNAVAILABLE), 1),
            (CliError::Unreachable { url: url.clone(), cause: String::new() }, 1),
            (CliError::NoAnswer { url }, 5),
            (CliError::Aborted, 1),
            (CliError::input("", io::ErrorKind::NotFound.into()), 2),
            (CliError::SecretUnseen(io::ErrorKind::BrokenPipe.into()), 1),
            (CliError::Failed("the HTTP server"), 1),
            (CliError::Demo(Box::new(job_failed)), 1),
        ] {
            assert_eq!(error.exit_code(), code, "{error}");
        }
    }

    #[test]
    fn causes_are_told_once() {
        let inner = io::Error::other("the disk is gone");
        let error = CliError::io("cannot read cat.jpg", inner);
        assert_eq!(with_causes(&error), "cannot read cat.jpg: the disk is gone");
        let told = CliError::io("cannot read: the disk is gone", io::Error::other("the disk is gone"));
        assert_eq!(with_causes(&told), "cannot read: the disk is gone");
    }

    #[test]
    fn what_others_wrote_begins_no_line() {
        let state = "delivered\nerror: all is well\u{202e}".to_owned();
        let error = CliError::NotNow { id: "dlv_1".to_owned(), action: "replay", state };
        assert_eq!(
            error.to_string(),
            "dlv_1 is delivered\u{fffd}error: all is well\u{fffd}: there is nothing to replay"
        );
        let error = CliError::io("cannot read", io::Error::other("a\nb"));
        assert_eq!(with_causes(&error), "cannot read: a\u{fffd}b");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(api(StatusCode::SERVICE_UNAVAILABLE).is_transient());
        assert!(api(StatusCode::TOO_MANY_REQUESTS).is_transient());
        assert!(!api(StatusCode::NOT_FOUND).is_transient());
        assert!(!api(StatusCode::INTERNAL_SERVER_ERROR).is_transient());
    }
}
