//! Which trace a request belongs to: W3C Trace Context, its `traceparent`.

use std::fmt;
use std::str::FromStr;

use super::hex::hex;

/// A trace, and a step of it: whoever is asked next names a step of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace: [u8; 16],
    step: [u8; 8],
    flags: u8,
}

impl TraceParent {
    /// The header's name, in lower case.
    pub const HEADER: &'static str = "traceparent";

    /// The trace's id, as it is looked up by.
    #[must_use]
    pub fn trace_id(&self) -> String {
        hex(&self.trace)
    }

    /// Another step of the same trace. Of the flags, those go on that are defined.
    #[must_use]
    pub fn next(self, step: [u8; 8]) -> Self {
        // All zeros would be no step.
        let step = if step == [0; 8] { [1; 8] } else { step };
        Self { step, flags: self.flags & 0b11, ..self }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", hex(&self.trace), hex(&self.step), self.flags)
    }
}

/// The text is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent as W3C Trace Context has it")]
pub struct NoTraceParent;

impl FromStr for TraceParent {
    type Err = NoTraceParent;

    /// As the standard says how to read one: a later version may go on after what is known.
    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(NoTraceParent);
        let [version] = bytes(part()?)?;
        let this = Self { trace: bytes(part()?)?, step: bytes(part()?)?, flags: bytes::<1>(part()?)?[0] };
        let is_known = match version {
            0 => parts.next().is_none(),
            version => version != 0xff,
        };
        let is_valid = is_known && this.trace != [0; 16] && this.step != [0; 8];
        if is_valid { Ok(this) } else { Err(NoTraceParent) }
    }
}

/// Lower-case digits, and nothing but.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NoTraceParent> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(NoTraceParent);
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        _ => Err(NoTraceParent),
    };
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn it_is_read_and_written_and_goes_on() {
        let parent: TraceParent = PARENT.parse().unwrap();
        assert_eq!(parent.to_string(), PARENT);
        assert_eq!(parent.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        let next = parent.next([2; 8]).to_string();
        assert_eq!(next, "00-4bf92f3577b34da6a3ce929d0e0e4736-0202020202020202-01");
        let later = PARENT.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(later.parse::<TraceParent>(), Ok(parent));
    }

    #[test]
    fn others_are_none() {
        for wrong in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\u{e9}",
        ] {
            assert_eq!(wrong.parse::<TraceParent>(), Err(NoTraceParent), "{wrong}");
        }
    }
}
