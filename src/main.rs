//! The `darkroom` program: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    darkroom::cli::run()
}
