//! The `darkroom` program: parse, run, exit code.

use std::process::ExitCode;

/// The store's writer would spend a third of its time in glibc's allocator, on pieces of a few hundred bytes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    darkroom::cli::run()
}
