//! `darkroom secrets`: the secrets that sign your callbacks.

use clap::Subcommand;
use jiff::SignedDuration;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::{NewSecret, Secrets};
use super::output;
use super::table;

const ROTATE_NOTES: &str = "\
Examples:
  darkroom secrets rotate > new-secret
  darkroom secrets rotate --overlap 1h

The new secret is printed, here and never again. Callbacks are signed with both until the overlap has passed: give the \
new one to your receivers meanwhile. With --overlap 0s every older secret ends at once.";

/// What to do with the secrets.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print what the service sends
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Show which secrets sign, and until when
    List,
    /// Make a new secret, and let those before it sign along for a while
    #[command(after_help = ROTATE_NOTES)]
    Rotate {
        /// For how long, up to 168h
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = overlap)]
        overlap: u64,
    },
}

/// In seconds.
fn overlap(text: &str) -> Result<u64, String> {
    let seconds = text.parse::<SignedDuration>().ok().and_then(|duration| duration.as_secs().try_into().ok());
    seconds.ok_or_else(|| "a duration such as 24h, 90m or 0s".to_owned())
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let secrets: Reply<Secrets> = api.get(api.root().await?.href("secrets")?).await?;
    match args.command {
        Command::List if args.json => output::json(&secrets.text),
        Command::List => output::text(&table(&secrets.body)),
        Command::Rotate { overlap } => {
            let configured = || {
                CliError::Check("the secret is in the service's configuration; change it there".to_owned())
            };
            let mut url = api.resolve(secrets.body.links.find("rotate").ok_or_else(configured)?)?;
            url.query_pairs_mut().append_pair("overlap_seconds", &overlap.to_string());
            let new: Reply<NewSecret> = api.post(url.as_str()).await?;
            let printed = if args.json { output::json(&new.text) } else { output::line(&new.body.secret) };
            printed.map_err(|error| match error {
                CliError::Output(source) => CliError::SecretUnseen(source),
                other => other,
            })
        }
    }
}

fn table(secrets: &Secrets) -> String {
    let rows = secrets.items.iter().map(|secret| {
        let id = secret.id.clone().unwrap_or_else(|| "(configured)".to_owned());
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let times = [&secret.created_at, &secret.expires_at].map(or_dash);
        let [created, expires] = times;
        [id, secret.state.clone(), secret.fingerprint.clone(), created, expires]
    });
    table::table(["SECRET", "STATE", "FINGERPRINT", "CREATED", "EXPIRES"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overlap_is_a_duration() {
        for (text, seconds) in [("24h", 86_400), ("90m", 5400), ("0s", 0), ("1h 30m", 5400), ("PT1H", 3600)] {
            assert_eq!(overlap(text), Ok(seconds), "{text}");
        }
        for text in ["", "24", "-1h", "soon"] {
            assert!(overlap(text).is_err(), "{text}");
        }
    }
}
