//! The tools of the system that a test needs, and what it says where it cannot have them.

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Why a test cannot have what it needs from the system.
#[derive(Debug, Serialize, Deserialize)]
pub enum Unable {
    /// A tool is not installed, or not whole.
    Missing(String),
    /// The kernel, or who confines this process, says no.
    Refused(String),
}

impl Unable {
    /// For a step that no kernel refuses: what fails is the tool, or what it needs.
    pub fn missing(self) -> Self {
        let (Self::Missing(what) | Self::Refused(what)) = self;
        Self::Missing(what)
    }

    /// Says that there was no such test. A missing tool fails it under `CI=true`; a refusal is only told, as a
    /// machine may have no remedy for that.
    pub fn skip(self, test: &str) {
        match self {
            Self::Missing(what) => {
                assert!(std::env::var_os("CI").is_none(), "no {test}: a tool is missing: {what}");
                say(&format!("SKIPPED, no {test}: a tool is missing: {what}"));
            }
            Self::Refused(what) => {
                say(&format!("SKIPPED, no {test}: this machine does not allow it: {what}"));
            }
        }
    }
}

/// Says something that is seen although the harness keeps what a passing test prints.
pub fn say(text: &str) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Result<(), Unable> {
    let name = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => Unable::Missing(name.clone()),
        _ => Unable::Refused(format!("{name}: {error}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Unable::Refused(format!("{name}, {}: {}", output.status, said.trim())))
}

/// A program of the system; some paths leave out where those of the administrator are.
pub fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}
