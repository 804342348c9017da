//! Commands that do one thing to several resources.

use super::error::{CliError, FAILURE};
use super::output;

/// What to do it to.
#[derive(clap::Args)]
pub(super) struct Ids {
    /// The ids; with --json, each answer is a JSON document on a line of its own
    #[arg(required = true, value_name = "ID")]
    pub(super) ids: Vec<String>,
}

impl Ids {
    /// Does it to each, whatever becomes of the others; those that fail are named as they do.
    pub(super) async fn each(
        &self,
        mut act: impl AsyncFnMut(&str) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if let [id] = &self.ids[..] {
            return act(id).await;
        }
        let (mut codes, mut unprinted) = (Vec::new(), None);
        for (done, id) in (1..).zip(&self.ids) {
            match act(id).await {
                Ok(()) => {}
                // It is done all the same, and so are the others.
                Err(error @ CliError::Output(_)) => unprinted = Some(error),
                Err(error) => {
                    codes.push(error.exit_code());
                    let text = super::error::with_causes(&error);
                    let named = if text.contains(id.as_str()) { text } else { format!("{id}: {text}") };
                    output::error(&named);
                    if error.concerns_the_service() {
                        let rest = self.ids.get(done..).unwrap_or_default();
                        if !rest.is_empty() {
                            output::note(&format!("left as they are: {}", rest.join(", ")));
                        }
                        break;
                    }
                }
            }
        }
        let Some(&first) = codes.first() else { return unprinted.map_or(Ok(()), Err) };
        let code = if codes.iter().all(|code| *code == first) { first } else { FAILURE };
        Err(CliError::Several { failed: codes.len(), of: self.ids.len(), code })
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    async fn each(ids: &[&str], act: impl Fn(&str) -> Result<(), CliError>) -> (Vec<String>, Option<u8>) {
        let ids = Ids { ids: ids.iter().map(|id| (*id).to_owned()).collect() };
        let mut tried = Vec::new();
        let result = ids.each(async |id: &str| {
            tried.push(id.to_owned());
            act(id)
        });
        let code = result.await.err().map(|error| error.exit_code());
        (tried, code)
    }

    #[tokio::test]
    async fn each_is_done_and_the_code_is_theirs_or_1() {
        let act = |id: &str| match id {
            "usage" => Err(CliError::Usage(String::new())),
            "check" => Err(CliError::Check(String::new())),
            _ => Ok(()),
        };
        for (ids, code) in [
            (&["a", "b"][..], None),
            (&["usage"], Some(2)),
            (&["usage", "a", "usage"], Some(2)),
            (&["a", "usage", "check", "b"], Some(1)),
        ] {
            assert_eq!(each(ids, act).await, (ids.iter().map(|id| (*id).to_owned()).collect(), code));
        }
    }

    #[tokio::test]
    async fn nobody_who_reads_is_no_reason_to_stop_and_no_service_is() {
        let closed = |_: &str| Err(CliError::Output(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(each(&["a", "b"], closed).await, (vec!["a".to_owned(), "b".to_owned()], Some(1)));
        let url: url::Url = "http://127.0.0.1:1/".parse().unwrap();
        let gone = |_: &str| Err(CliError::NoAnswer { url: url.clone() });
        assert_eq!(each(&["a", "b"], gone).await, (vec!["a".to_owned()], Some(5)));
    }
}
