//! Secrets that come in by flags, files or the environment, and are shown nowhere.

use std::convert::Infallible;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::CliError;
use crate::domain::secret::SigningSecret;

const ENVIRONMENT: &str = "DARKROOM_SECRET";
/// A file that is longer holds something else.
const MAX_FILE_BYTES: u64 = 1024;

/// Text that no message repeats.
#[derive(Clone)]
pub(super) struct Hidden(String);

impl Hidden {
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

// Every text is taken: clap repeats a value that it refuses, so what is wrong with one is said later.
impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

/// The secret that signs callbacks.
#[derive(clap::Args)]
pub(super) struct SecretArgs {
    /// The signing secret; other users of this machine can see flags, so prefer a file or DARKROOM_SECRET
    #[arg(long, value_name = "whsec_…", conflicts_with = "secret_file")]
    secret: Option<Hidden>,
    /// A file with the signing secret, such as `signing-secret` in the service's data folder
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

impl SecretArgs {
    /// Whether a flag names a secret; the environment may name one besides.
    pub(super) fn is_given(&self) -> bool {
        self.secret.is_some() || self.secret_file.is_some()
    }

    /// The secret of the flags, or else of the environment.
    pub(super) fn read(&self) -> Result<Option<SigningSecret>, CliError> {
        let from_environment = std::env::var(ENVIRONMENT).ok().filter(|text| !text.is_empty());
        match (&self.secret, &self.secret_file, from_environment) {
            (Some(secret), _, _) => parse(secret.expose(), "--secret").map(Some),
            (None, Some(file), _) => from_file(file).map(Some),
            (None, None, Some(text)) => parse(&text, ENVIRONMENT).map(Some),
            (None, None, None) => Ok(None),
        }
    }
}

/// Reads the secret that a file holds.
pub(super) fn from_file(file: &Path) -> Result<SigningSecret, CliError> {
    let name = file.display().to_string();
    let mut text = String::new();
    File::open(file)
        .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
        .map_err(|source| CliError::io(format!("cannot read the signing secret in {name}"), source))?;
    parse(&text, &name)
}

fn parse(text: &str, origin: &str) -> Result<SigningSecret, CliError> {
    text.trim().parse().map_err(|error| CliError::Usage(format!("{origin} is no signing secret: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_a_secret_and_perhaps_a_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("signing-secret");
        let secret = SigningSecret::from_entropy([3; 32]);
        std::fs::write(&file, format!("{}\n", secret.expose_text())).unwrap();
        assert_eq!(from_file(&file).unwrap(), secret);
    }

    #[test]
    fn what_is_no_secret_is_not_repeated() {
        let args = SecretArgs { secret: "hunter2".parse().ok(), secret_file: None };
        let error = args.read().unwrap_err();
        let text = error.to_string();
        assert!(text.contains("--secret") && !text.contains("hunter2"), "{text}");
        assert_eq!(error.exit_code(), crate::cli::error::USAGE);
    }
}
