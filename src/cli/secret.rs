//! Secrets that come in by flags, files or the environment, and are shown nowhere.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::CliError;
use crate::domain::secret::SigningSecret;

const ENVIRONMENT: &str = "DARKROOM_SECRET";
/// A file that is longer holds something else.
const MAX_FILE_BYTES: u64 = 1024;
/// The same of several lines.
const MAX_TEXT_BYTES: u64 = 16 * 1024;

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

/// Several secrets, as there are during a rotation.
#[derive(clap::Args)]
pub(super) struct SecretsArgs {
    /// A signing secret, perhaps one of several; other users of this machine can see flags, so prefer a file
    /// or DARKROOM_SECRET
    #[arg(long, value_name = "whsec_…")]
    secret: Vec<Hidden>,
    /// A file with a signing secret, perhaps one of several, or - for standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<PathBuf>,
}

impl SecretsArgs {
    /// How many of them come from standard input.
    pub(super) fn stdins(&self) -> usize {
        self.secret_file.iter().filter(|file| is_stdin(file)).count()
    }

    /// The secrets of the flags, or else of the environment, as they are written.
    pub(super) fn texts(&self) -> Result<Vec<Hidden>, CliError> {
        let mut texts = self.secret.clone();
        for file in &self.secret_file {
            let name = file.display();
            let mut text = String::new();
            let read = if is_stdin(file) {
                read(io::stdin(), &mut text)
            } else {
                File::open(file).and_then(|file| read(file, &mut text))
            };
            read.map_err(|source| {
                CliError::input(format!("cannot read a signing secret from {name}"), source)
            })?;
            texts.push(Hidden(text));
        }
        if texts.is_empty() {
            texts.extend(std::env::var(ENVIRONMENT).ok().filter(|text| !text.is_empty()).map(Hidden));
        }
        Ok(texts)
    }

    /// The secrets of the flags, or else of the environment. There is at least one.
    pub(super) fn parse(&self) -> Result<Vec<SigningSecret>, CliError> {
        let texts = self.texts()?;
        if texts.is_empty() {
            return Err(CliError::Usage(format!("name a secret: --secret-file, --secret or {ENVIRONMENT}")));
        }
        let numbered = (1..).zip(&texts);
        numbered.map(|(n, text)| parse(text.expose(), &format!("secret {n}"))).collect()
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// Reads the secret that a file holds.
pub(super) fn from_file(file: &Path) -> Result<SigningSecret, CliError> {
    let name = file.display().to_string();
    let mut text = String::new();
    File::open(file)
        .and_then(|file| read(file, &mut text))
        .map_err(|source| CliError::input(format!("cannot read the signing secret in {name}"), source))?;
    parse(&text, &name)
}

/// A file that may hold a few credentials.
pub(super) fn read_text(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(file)?.take(MAX_TEXT_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn read(from: impl Read, text: &mut String) -> io::Result<usize> {
    from.take(MAX_FILE_BYTES).read_to_string(text)
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
