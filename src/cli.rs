//! The command line: one file a family of commands.
//!
//! Results go to standard output; progress, hints and errors go to standard error. The commands that
//! talk to a service know its URL and follow its links from there, as any other client does.

mod api;
mod artifacts;
mod audit;
mod backup;
mod bulk;
mod client;
mod clients;
mod deliveries;
mod demo;
mod destinations;
mod doctor;
mod error;
mod forward;
mod imaging_worker;
mod jobs;
mod listen;
mod misbehave;
mod model;
mod openapi;
mod output;
mod pages;
mod picture;
mod problem;
mod progress;
mod queue;
mod receiver;
mod render;
mod replays;
mod script;
mod secret;
mod secrets;
mod seen;
mod serve;
mod several;
mod signals;
mod signature;
mod submit;
mod table;
mod watch;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::api::Target;
use self::error::CliError;

const AFTER_HELP: &str = "\
Try it:
  darkroom demo                           the whole story on this machine, in a few seconds
  darkroom serve --dev                    a service on loopback, without API keys
  darkroom submit photo.jpg --wait        hand in a picture and wait for its artifacts
  darkroom clients create shop            an API key, for a service without --dev

Exit codes: 0 ok, 1 failure, 2 usage or configuration, 3 not found, 4 job failed, 5 time-out, 6 refused";

/// An asynchronous image-job service: a picture and a callback URL in, artifacts and a signed callback out.
#[derive(Parser)]
#[command(name = "darkroom", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Args),
    /// Show the whole story on this machine: submit, watch, verify the callback, open the artifacts
    Demo(demo::Args),
    /// Hand in a picture
    Submit(Box<submit::Args>),
    /// Look at jobs; cancel, retry, delete and restore them
    Jobs(jobs::Args),
    /// Look at deliveries of callbacks; send them again, call them off
    Deliveries(deliveries::Args),
    /// Send many deliveries again, as an operation that can be paused and resumed
    Replays(replays::Args),
    /// Look at where callbacks go; pause and resume it
    Destinations(destinations::Args),
    /// Check that a service is well, and that every delivery is accounted for; exit code 1 if not
    Doctor(doctor::Args),
    /// Look at the queue; pause and resume it
    Queue(queue::Args),
    /// Look at the secrets that sign your callbacks, and make a new one
    Secrets(secrets::Args),
    /// Create clients and their API keys, list and revoke them
    Clients(clients::Args),
    /// List what operators did, newest first
    Audit(audit::Args),
    /// Write the whole store and its pictures to a file, also while a service runs
    Export(backup::ExportArgs),
    /// Fill an empty data folder from such a file
    Import(backup::ImportArgs),
    /// Receive callbacks here, verify them, print them and hand them on
    Listen(listen::Args),
    /// Sign callbacks, verify them, and find out why one does not verify
    Signature(signature::Args),
    /// Print the machine-readable description of the API
    Openapi(openapi::Args),
    /// Work on pictures for `serve`, which starts this by itself
    #[command(name = crate::app::imaging::COMMAND, hide = true)]
    ImagingWorker(imaging_worker::Args),
}

/// Runs the command that the process was started with.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // `--help` and `--version` come this way too, with code 0.
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(error::USAGE));
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough: `darkroom jobs list | head -1`.
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&error::with_causes(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute(cli: Cli) -> Result<(), CliError> {
    if let Command::ImagingWorker(args) = &cli.command {
        return imaging_worker::run(args);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::io("the runtime cannot start", source))?;
    let result = runtime.block_on(dispatch(cli));
    // What still runs was told to stop and given its time; dropping the runtime would wait without end.
    runtime.shutdown_background();
    result
}

async fn dispatch(cli: Cli) -> Result<(), CliError> {
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(args)).await,
        Command::Demo(args) => Box::pin(demo::run(args)).await,
        Command::Submit(args) => Box::pin(submit::run(*args, &cli.target)).await,
        Command::Jobs(args) => Box::pin(jobs::run(args, &cli.target)).await,
        Command::Deliveries(args) => Box::pin(deliveries::run(args, &cli.target)).await,
        Command::Replays(args) => Box::pin(replays::run(args, &cli.target)).await,
        Command::Destinations(args) => Box::pin(destinations::run(args, &cli.target)).await,
        Command::Doctor(args) => Box::pin(doctor::run(args, &cli.target)).await,
        Command::Queue(args) => Box::pin(queue::run(args, &cli.target)).await,
        Command::Secrets(args) => Box::pin(secrets::run(args, &cli.target)).await,
        Command::Clients(args) => Box::pin(clients::run(args, &cli.target)).await,
        Command::Audit(args) => Box::pin(audit::run(args, &cli.target)).await,
        Command::Export(args) => Box::pin(backup::export(args, &cli.target)).await,
        Command::Import(args) => Box::pin(backup::import(args)).await,
        Command::Listen(args) => Box::pin(listen::run(args)).await,
        Command::Signature(args) => signature::run(args),
        Command::Openapi(args) => openapi::run(&args, &cli.target),
        Command::ImagingWorker(args) => imaging_worker::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_commands_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_cannot_be_parsed_is_a_usage_error() {
        for line in ["darkroom", "darkroom bake", "darkroom jobs get", "darkroom serve --listen here"] {
            let code = parse(line).err().map(|error| error.exit_code());
            assert_eq!(code, Some(i32::from(error::USAGE)), "{line}");
        }
    }

    #[test]
    fn the_flags_that_name_a_service_are_for_no_list_of_commands() {
        let cli = Cli::command();
        let heading = cli.get_arguments().find_map(|flag| flag.get_help_heading()).unwrap();
        assert!(cli.get_subcommands().all(|command| !heading.contains(command.get_name())), "{heading}");
    }

    #[test]
    fn the_service_can_be_named_before_and_after_the_command() {
        for line in ["darkroom --url http://a.example jobs list", "darkroom jobs list --url http://a.example"]
        {
            let cli = parse(line).map_err(|error| error.to_string()).unwrap();
            assert_eq!(cli.target.url().unwrap().as_str(), "http://a.example/");
        }
    }
}
