//! All printing: results to standard output, everything about them to standard error.

use std::borrow::Cow;
use std::io::{self, Write as _};

use super::error::CliError;

/// Text for people on standard output.
pub(super) fn text(text: &str) -> Result<(), CliError> {
    write_line(&printable(text)).map_err(CliError::Output)
}

/// A JSON document on standard output, to the letter.
pub(super) fn json(document: &str) -> Result<(), CliError> {
    write_line(document.trim_end()).map_err(CliError::Output)
}

/// A remark on standard error. That nobody may read it is no reason to fail.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// Flushed, so that whoever waits for the line on a pipe gets it.
fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// File names, tags and error texts come from others: they must not steer the terminal.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n';
    if text.contains(steers) { Cow::Owned(text.replace(steers, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_steer_the_terminal() {
        assert_eq!(printable("a\nb é"), "a\nb é");
        assert_eq!(printable("\u{1b}[2Jx\r\u{9b}y"), "\u{fffd}[2Jx\u{fffd}\u{fffd}y");
    }
}
