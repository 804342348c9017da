//! What a body may have been before something on its way changed it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use serde_json::Value;

const BOM: &[u8] = b"\xef\xbb\xbf";
/// Indenting can make a body hundreds of times longer.
const MAX_RENDERED: usize = 4 << 20;

/// How the received body differs from the one that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum BodyChange {
    /// The signed one ended with a line end.
    LineEndRemoved,
    /// The signed one had no space or line end around it.
    SpaceAdded,
    /// Every `\n` became `\r\n`.
    LineFeedToCrLf,
    /// Every `\r\n` became `\n`.
    CrLfToLineFeed,
    /// A byte order mark was put before it.
    ByteOrderMarkAdded,
    /// The byte order mark before it was removed.
    ByteOrderMarkRemoved,
    /// It was encoded as base64.
    Base64,
    /// It was packed into a JSON string.
    JsonString,
    /// It was read as JSON and written again.
    Reserialized(Style),
}

/// How the signed JSON was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Style {
    /// Where space stands.
    pub layout: Layout,
    /// Which characters are escaped.
    pub escapes: Escapes,
    /// Whether the keys were sorted.
    pub sorted: bool,
    /// Whether a line end followed.
    pub line_end: bool,
}

/// Where space stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// None.
    Compact,
    /// One space after each colon and comma, as Python writes it.
    Spaced,
    /// A line each, indented by two spaces.
    Indented2,
    /// A line each, indented by four spaces.
    Indented4,
}

/// Which characters are escaped in JSON's strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Escapes {
    /// The same as received.
    Same,
    /// Only those that must be.
    Least,
    /// All but ASCII, as Python writes it.
    NonAscii,
    /// All but ASCII, and slashes, as PHP writes it.
    NonAsciiAndSlashes,
}

/// The bodies that may have been signed, the likelier first.
pub(super) fn originals(body: &[u8]) -> impl Iterator<Item = (BodyChange, Vec<u8>)> {
    let text = str::from_utf8(body).ok();
    let simple = [
        Some((BodyChange::LineEndRemoved, [body, b"\n"].concat())),
        Some((BodyChange::LineEndRemoved, [body, b"\r\n"].concat())),
        Some((BodyChange::SpaceAdded, body.trim_ascii().to_vec())),
        text.map(|text| (BodyChange::LineFeedToCrLf, text.replace("\r\n", "\n").into_bytes())),
        text.map(|text| (BodyChange::CrLfToLineFeed, text.replace('\n', "\r\n").into_bytes())),
        body.strip_prefix(BOM).map(|rest| (BodyChange::ByteOrderMarkAdded, rest.to_vec())),
        Some((BodyChange::ByteOrderMarkRemoved, [BOM, body].concat())),
        BASE64.decode(body.trim_ascii()).ok().map(|original| (BodyChange::Base64, original)),
        serde_json::from_slice::<String>(body).ok().map(|text| (BodyChange::JsonString, text.into_bytes())),
    ];
    simple.into_iter().flatten().chain(reserialized(body))
}

/// The body as JSON in every style, its keys as they came or sorted.
fn reserialized(body: &[u8]) -> impl Iterator<Item = (BodyChange, Vec<u8>)> {
    let text = str::from_utf8(body).ok();
    // Its nesting is bounded by having been read.
    let parsed = text.and_then(|text| serde_json::from_str::<Value>(text).ok());
    // serde_json's objects have their keys in order.
    let sorted = parsed.as_ref().map(Value::to_string);
    let texts = [(false, parsed.and(text).map(str::to_owned)), (true, sorted)];
    texts.into_iter().filter_map(|(sorted, text)| Some((sorted, text?))).flat_map(|(sorted, text)| {
        styles(sorted).filter_map(move |style| {
            Some((BodyChange::Reserialized(style), render(&text, style)?.into_bytes()))
        })
    })
}

fn styles(sorted: bool) -> impl Iterator<Item = Style> {
    let layouts = [Layout::Compact, Layout::Spaced, Layout::Indented2, Layout::Indented4];
    let escapes = [Escapes::Same, Escapes::Least, Escapes::NonAscii, Escapes::NonAsciiAndSlashes];
    [false, true].into_iter().flat_map(move |line_end| {
        layouts.into_iter().flat_map(move |layout| {
            escapes.into_iter().map(move |escapes| Style { layout, escapes, sorted, line_end })
        })
    })
}

/// Valid JSON in another style; `None` when it gets too long.
fn render(json: &str, style: Style) -> Option<String> {
    let (indent, after_colon, after_comma) = match style.layout {
        Layout::Compact => (None, "", ""),
        Layout::Spaced => (None, " ", " "),
        Layout::Indented2 => (Some(2), " ", ""),
        Layout::Indented4 => (Some(4), " ", ""),
    };
    let mut out = String::with_capacity(json.len());
    let line = |out: &mut String, depth: usize| {
        if let Some(width) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    let mut depth = 0_usize;
    let mut before = "";
    for token in tokens(json) {
        let closes = matches!(token, "]" | "}");
        if closes {
            depth = depth.saturating_sub(1);
        }
        // An empty list or object stays on its line.
        let opened = matches!(before, "[" | "{");
        if before == "," || opened != closes {
            line(&mut out, depth);
        }
        match token {
            ":" => out.extend([":", after_colon]),
            "," => out.extend([",", after_comma]),
            _ if token.starts_with('"') => out.push_str(&escape(token, style.escapes)?),
            _ => out.push_str(token),
        }
        if matches!(token, "[" | "{") {
            depth += 1;
        }
        before = token;
        if out.len() > MAX_RENDERED {
            return None;
        }
    }
    if style.line_end {
        out.push('\n');
    }
    Some(out)
}

/// Punctuation, strings with their quotes, and what is neither; space between them is left out.
fn tokens(json: &str) -> impl Iterator<Item = &str> {
    let mut rest = json;
    std::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let length = match rest.bytes().next()? {
            b'"' => string_length(rest),
            b'[' | b']' | b'{' | b'}' | b':' | b',' => 1,
            _ => rest.find([' ', '\n', '\r', '\t', '[', ']', '{', '}', ':', ',']).unwrap_or(rest.len()),
        };
        let (token, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(token)
    })
}

fn string_length(text: &str) -> usize {
    let mut escaped = true;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn escape(string: &str, escapes: Escapes) -> Option<String> {
    if escapes == Escapes::Same {
        return Some(string.to_owned());
    }
    let least = serde_json::to_string(&serde_json::from_str::<String>(string).ok()?).ok()?;
    let mut out = String::with_capacity(least.len());
    let mut units = [0; 2];
    for c in least.chars() {
        if c == '/' && escapes == Escapes::NonAsciiAndSlashes {
            out.push_str("\\/");
        } else if c.is_ascii() || escapes == Escapes::Least {
            out.push(c);
        } else {
            out.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    Some(out)
}

impl fmt::Display for BodyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LineEndRemoved => f.write_str("a line end at its end was removed"),
            Self::SpaceAdded => f.write_str("space or a line end was added around it"),
            Self::LineFeedToCrLf => f.write_str("its line ends were changed from LF to CRLF"),
            Self::CrLfToLineFeed => f.write_str("its line ends were changed from CRLF to LF"),
            Self::ByteOrderMarkAdded => f.write_str("a byte order mark was put before it"),
            Self::ByteOrderMarkRemoved => f.write_str("the byte order mark before it was removed"),
            Self::Base64 => f.write_str("it was encoded as base64"),
            Self::JsonString => f.write_str("it was packed into a JSON string"),
            Self::Reserialized(style) => {
                write!(f, "it was read as JSON and written again; signed was {style}")
            }
        }
    }
}

impl fmt::Display for Style {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.layout {
            Layout::Compact => "compact JSON",
            Layout::Spaced => "JSON with a space after each colon and comma",
            Layout::Indented2 => "JSON indented by two spaces",
            Layout::Indented4 => "JSON indented by four spaces",
        })?;
        f.write_str(match self.escapes {
            Escapes::Same => "",
            Escapes::Least => ", without needless escapes",
            Escapes::NonAscii => ", all but ASCII escaped",
            Escapes::NonAsciiAndSlashes => ", all but ASCII and slashes escaped",
        })?;
        f.write_str(if self.sorted { ", with sorted keys" } else { "" })?;
        f.write_str(if self.line_end { ", and a line end" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPACT: &str = r#"{"b":[1.50,{},[]],"a":"é/\\\""}"#;

    fn rendered(layout: Layout, escapes: Escapes) -> String {
        render(COMPACT, Style { layout, escapes, sorted: false, line_end: false }).unwrap()
    }

    #[test]
    fn each_style_is_that_of_its_writers() {
        // As json.dumps of Python writes it, and json_encode of PHP.
        assert_eq!(rendered(Layout::Compact, Escapes::Same), COMPACT);
        assert_eq!(
            rendered(Layout::Spaced, Escapes::NonAscii),
            r#"{"b": [1.50, {}, []], "a": "\u00e9/\\\""}"#
        );
        assert_eq!(
            rendered(Layout::Compact, Escapes::NonAsciiAndSlashes),
            r#"{"b":[1.50,{},[]],"a":"\u00e9\/\\\""}"#
        );
        let value: Value = serde_json::from_str(COMPACT).unwrap();
        let pretty =
            Style { layout: Layout::Indented2, escapes: Escapes::Same, sorted: true, line_end: false };
        assert_eq!(
            render(&value.to_string(), pretty).unwrap(),
            serde_json::to_string_pretty(&value).unwrap()
        );
    }

    #[test]
    fn what_is_written_in_any_style_is_found_in_any_other() {
        let spellings: Vec<_> =
            styles(false).filter_map(|style| render(COMPACT, style)).map(String::into_bytes).collect();
        for received in &spellings {
            for signed in &spellings {
                let same = |text: &[u8]| text == signed;
                assert!(
                    same(received) || originals(received).any(|(_, text)| same(&text)),
                    "{} from {}",
                    String::from_utf8_lossy(signed),
                    String::from_utf8_lossy(received)
                );
            }
        }
    }

    #[test]
    fn what_is_no_json_and_what_grows_too_long_ends() {
        for body in [&b"\"\\"[..], b"{\"a\":", b"", b"\xff", b"nul", &b"[".repeat(1 << 16)] {
            assert!(originals(body).all(|(change, _)| !matches!(change, BodyChange::Reserialized(_))));
        }
        let deep = format!("{}{}1{}", "[".repeat(100), "1,".repeat(12_000), "]".repeat(100));
        assert!(originals(deep.as_bytes()).all(|(_, text)| text.len() <= MAX_RENDERED + 1));
    }
}
