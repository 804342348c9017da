//! All printing: results to standard output, everything about them to standard error.

use std::borrow::Cow;
use std::io::{self, Write as _};

use super::error::CliError;

/// Lines for people on standard output. The line ends in it are ours: what others wrote has passed [`printable`], as
/// the cells of a table do.
pub(super) fn text(text: &str) -> Result<(), CliError> {
    write_line(&replaced(text, |c| c != '\n' && steers(c))).map_err(CliError::Output)
}

/// One line for people on standard output, whatever is in it.
pub(super) fn line(line: &str) -> Result<(), CliError> {
    text(&printable(line))
}

/// A JSON document on standard output, to the letter.
pub(super) fn json(document: &str) -> Result<(), CliError> {
    write_line(document.trim_end()).map_err(CliError::Output)
}

/// A remark on standard error, in one line. That nobody may read it is no reason to fail.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(text));
}

/// Why something failed, on standard error; the line ends in it are ours.
pub(super) fn error(text: &str) {
    let _ = writeln!(io::stderr().lock(), "error: {}", replaced(text, |c| c != '\n' && steers(c)));
}

/// Flushed, so that whoever waits for the line on a pipe gets it.
fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What came from others, as a part of a line: callbacks, file names, tags and error texts must not steer the
/// terminal, begin a line of their own or turn the order of what is around them.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    replaced(text, steers)
}

/// Control characters, the line ends of Unicode, and what has the property `Bidi_Control` (UAX #9).
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn replaced(text: &str, which: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.contains(&which) { Cow::Owned(text.replace(which, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_one_line_and_steers_nothing() {
        assert_eq!(printable("a é 日本"), "a é 日本");
        assert_eq!(printable("\u{1b}[2Jx\r\u{9b}y\u{7f}"), "\u{fffd}[2Jx\u{fffd}\u{fffd}y\u{fffd}");
        for end in
            ['\n', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}', '\u{202e}', '\u{2066}', '\u{200f}']
        {
            assert_eq!(printable(&format!("a{end}b")), "a\u{fffd}b", "{end:?}");
        }
    }
}
