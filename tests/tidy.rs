//! Taste, made executable: what the compiler and clippy cannot see about the source tree.
//!
//! One crate has no walls between its rooms, so the tables below are the walls. A new arrow is a line
//! in a table and a reviewed diff. The rules read tokens, not types: a renamed import can slip through,
//! an honest mistake can't.

use std::path::Path as FilePath;
use std::{fs, io};

/// The rooms (the modules that `src/lib.rs` declares) and what each may import besides itself.
///
/// From the door inwards: every arrow points down the list. Test modules obey the same table.
#[rustfmt::skip]
const ROOMS: &[(&str, &str)] = &[
    ("cli",       "app notify domain config clock telemetry"), // `notify`: it verifies with the sender's own code
    ("app",       "http worker service store blobs imaging notify domain config clock telemetry"),
    ("http",      "service domain config clock telemetry"),
    ("worker",    "service domain config clock telemetry"),
    ("service",   "store blobs imaging notify domain config clock telemetry"),
    ("store",     "domain config clock telemetry"),
    ("blobs",     "domain config clock telemetry"),
    ("imaging",   "domain config clock telemetry"),
    ("notify",    "domain config clock telemetry"),
    ("telemetry", "config"),
    ("config",    "domain"),
    ("domain",    ""),
    ("clock",     ""),
];

/// The one room that `main.rs` may enter.
const MAIN_ENTERS: &str = "cli";

/// Crates that stay in their rooms, so that replacing one is a change to that room.
#[rustfmt::skip]
const CRATE_STAYS_IN: &[(&str, &str)] = &[
    ("hyper",      "http notify cli"), // `notify`: the errors inside reqwest's; `cli`: the receiver of `listen`
    ("hyper_util", "http notify cli"),
    ("reqwest",    "notify cli"),
    ("sled",       "store"),
    ("warp",       "http"),
];

/// What else `domain` must not use: it does no I/O, and chance is passed in.
const NOT_IN_DOMAIN: &[&str] = &[
    "getrandom",
    "net::TcpListener",
    "net::TcpStream",
    "net::ToSocketAddrs",
    "net::UdpSocket",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "tokio",
];

/// Clock reads, and the one file that may have them. Everyone else is handed a `Clock`.
const CLOCK_READS: &[&str] = &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"];
const CLOCK_FILE: &str = "src/clock.rs";

const BANNED_WORDS: &[&str] = &["unsafe"];
const BANNED_MACROS: &[&str] = &["dbg", "todo", "unimplemented"];
const UNFINISHED_MARKS: &[&str] = &["FIXME", "TODO"];

/// Without the tests at a file's end. A file that needs a table of contents is two files.
const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_MAIN_LINES: usize = 40;

// === the tree, as it is

#[test]
fn imports_follow_the_arrows() {
    assert_tidy(wrong_arrows);
}

#[test]
fn crates_stay_in_their_rooms() {
    assert_tidy(strayed_crates);
}

#[test]
fn only_the_clock_reads_the_time() {
    assert_tidy(clock_reads);
}

#[test]
fn nothing_is_unsafe_or_unfinished() {
    assert_tidy(banned_words);
}

#[test]
fn every_file_is_named_by_its_parent() {
    assert_tidy(dead_files);
}

#[test]
fn files_and_functions_fit_in_the_head() {
    assert_tidy(long_parts);
}

#[test]
fn every_configuration_key_is_explained() {
    assert_tidy(unexplained_keys);
}

/// A rule yields its findings as `path:line: message`.
type Rule = fn(&Tree) -> Vec<String>;

fn assert_tidy(rule: Rule) {
    let findings = Tree::read().map_or_else(|error| vec![error.to_string()], |tree| rule(&tree));
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
}

// === the rules

fn wrong_arrows(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let module = source.module();
        let Some(&room) = module.first() else {
            if source.path == "src/main.rs" {
                findings.extend(wrong_doors(source));
            }
            continue;
        };
        let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            findings.push(format!("{}:1: room `{room}` has no row in the table of rooms", source.path));
            continue;
        };
        for path in paths(&source.tokens()) {
            let Some(target) = path.within_crate(&module) else { continue };
            let message = match target.first() {
                // `crate` alone is `pub(crate)`, unless it is imported.
                None if !path.imported => continue,
                None => "imports the whole crate; name the room".to_owned(),
                Some(&to) if to == room || has(allowed, to) => continue,
                Some(to) if ROOMS.iter().any(|(name, _)| name == to) => {
                    format!("`{room}` may not import `{to}`")
                }
                Some(to) => format!("`crate::{to}` is no room"),
            };
            findings.push(source.at(path.line, &message));
        }
    }
    findings
}

fn wrong_doors(main: &Source) -> Vec<String> {
    paths(&main.tokens())
        .iter()
        .filter(|path| {
            path.segments.first() == Some(&"darkroom") && path.segments.get(1) != Some(&MAIN_ENTERS)
        })
        .map(|path| main.at(path.line, &format!("main.rs may use `darkroom::{MAIN_ENTERS}` only")))
        .collect()
}

fn strayed_crates(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let room = source.module().first().copied().unwrap_or_default();
        for path in paths(&source.tokens()) {
            for (name, rooms) in CRATE_STAYS_IN {
                if path.segments.first() == Some(name) && !has(rooms, room) {
                    findings.push(source.at(path.line, &format!("`{name}` stays in: {rooms}")));
                }
            }
            for name in NOT_IN_DOMAIN {
                if room == "domain" && path.contains(name) {
                    findings.push(source.at(path.line, &format!("`domain` may not use `{name}`")));
                }
            }
        }
    }
    findings
}

/// Clippy bans most of these by their types; this also holds where only `cargo test` is run.
fn clock_reads(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in tree.sources.iter().filter(|source| source.path != CLOCK_FILE) {
        for path in paths(&source.tokens()) {
            for read in CLOCK_READS.iter().filter(|read| path.contains(read)) {
                findings
                    .push(source.at(path.line, &format!("`{read}` outside {CLOCK_FILE}; take a `Clock`")));
            }
        }
    }
    findings
}

fn banned_words(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let tokens = source.tokens();
        for (at, token) in tokens.iter().enumerate() {
            let is_macro = tokens.get(at + 1).is_some_and(|next| next.text == "!");
            if BANNED_WORDS.contains(&token.text) || is_macro && BANNED_MACROS.contains(&token.text) {
                findings.push(source.at(token.line, &format!("`{}` is banned", token.text)));
            }
        }
        // Marks live in comments, so these are looked for in the text.
        for (line, text) in (1..).zip(source.text.lines()) {
            for word in text.split(|c| !is_word(c)).filter(|word| UNFINISHED_MARKS.contains(word)) {
                findings.push(source.at(line, &format!("a {word}: do it, or file it as an issue")));
            }
        }
    }
    findings
}

fn dead_files(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        if source.path.ends_with("/mod.rs") {
            findings.push(source.at(1, "the house has `foo.rs` + `foo/`, never mod.rs"));
            continue;
        }
        let module = source.module();
        let Some((name, parents)) = module.split_last() else { continue };
        let parent =
            if parents.is_empty() { "src/lib.rs".into() } else { format!("src/{}.rs", parents.join("/")) };
        let declaration = ["mod", name, ";"];
        let declared = tree.sources.iter().filter(|source| source.path == parent).any(|parent| {
            parent.tokens().windows(3).any(|tokens| tokens.iter().map(|token| token.text).eq(declaration))
        });
        if !declared {
            findings.push(source.at(1, &format!("dead: {parent} has no `mod {name};`")));
        }
    }
    findings
}

fn long_parts(tree: &Tree) -> Vec<String> {
    let mut findings = Vec::new();
    for source in &tree.sources {
        let mut tokens = source.tokens();
        let mut lines = source.text.lines().count();
        if let Some(line) = start_of_tests(&tokens) {
            tokens.retain(|token| token.line < line);
            lines = line - 1;
        }
        let most = if source.path == "src/main.rs" { MAX_MAIN_LINES } else { MAX_FILE_LINES };
        if lines > most {
            findings.push(source.at(1, &format!("{lines} lines without the tests; at most {most}")));
        }
        for (name, line, length) in functions(&tokens).into_iter().filter(|f| f.2 > MAX_FUNCTION_LINES) {
            let message = format!("`{name}` has {length} lines; at most {MAX_FUNCTION_LINES}");
            findings.push(source.at(line, &message));
        }
    }
    findings
}

/// `config/default.toml` is the documentation of the configuration: a comment stands above every key.
fn unexplained_keys(tree: &Tree) -> Vec<String> {
    let Some(config) = &tree.config else { return vec![format!("{CONFIG_FILE}:1: the file is missing")] };
    let mut findings = Vec::new();
    let mut above = "";
    let mut open_brackets = 0_usize;
    for (number, line) in (1..).zip(config.lines().map(str::trim)) {
        let key = line.split('=').next().unwrap_or_default().trim();
        let is_key = open_brackets == 0 && line.contains('=') && !line.starts_with(['#', '[']);
        if is_key && !above.starts_with('#') {
            findings.push(format!("{CONFIG_FILE}:{number}: no comment above `{key}`"));
        }
        // Inside a value of several lines, nothing is a key.
        for c in outside_strings(line) {
            match c {
                '[' | '{' => open_brackets += 1,
                ']' | '}' => open_brackets = open_brackets.saturating_sub(1),
                _ => {}
            }
        }
        above = line;
    }
    findings
}

/// The characters of a line of TOML that are neither in a string nor in a comment.
fn outside_strings(line: &str) -> impl Iterator<Item = char> {
    let mut quoted = false;
    line.chars()
        .filter(move |&c| {
            quoted ^= c == '"';
            !quoted
        })
        .take_while(|&c| c != '#')
}

/// Whether a space-separated list of a table names `word`.
fn has(list: &str, word: &str) -> bool {
    list.split(' ').any(|item| item == word)
}

// === what the rules look at

const CONFIG_FILE: &str = "config/default.toml";

struct Tree {
    sources: Vec<Source>,
    config: Option<String>,
}

struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

impl Tree {
    fn read() -> io::Result<Self> {
        let root = FilePath::new(env!("CARGO_MANIFEST_DIR"));
        let mut sources = Vec::new();
        read_sources(root, "src", &mut sources)?;
        if sources.is_empty() {
            return Err(io::Error::other("src/ has no source: no rule could fail"));
        }
        Ok(Self { sources, config: fs::read_to_string(root.join(CONFIG_FILE)).ok() })
    }
}

fn read_sources(root: &FilePath, folder: &str, sources: &mut Vec<Source>) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(root.join(folder))? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort(); // The order of a folder is chance; that of findings should not be.
    for name in names {
        let path = format!("{folder}/{name}");
        if root.join(&path).is_dir() {
            read_sources(root, &path, sources)?;
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(root.join(&path))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

impl Source {
    /// The module path that the file's place gives it; empty for the two crate roots.
    fn module(&self) -> Vec<&str> {
        match self.path.trim_start_matches("src/").trim_end_matches(".rs") {
            "lib" | "main" => Vec::new(),
            path => path.split('/').collect(),
        }
    }

    fn tokens(&self) -> Vec<Token<'_>> {
        lex(&self.text)
    }

    fn at(&self, line: usize, message: &str) -> String {
        format!("{}:{line}: {message}", self.path)
    }
}

/// A path as it is written, from a `use` (one for each leaf of its tree) or inline.
struct Path<'a> {
    line: usize,
    segments: Vec<&'a str>,
    imported: bool,
    /// The `mod name { … }` of this file around it.
    inside: Vec<&'a str>,
}

impl<'a> Path<'a> {
    /// Where a path of our own leads, from the crate's root; `None` if it does not say that it is ours.
    fn within_crate(&self, module: &[&'a str]) -> Option<Vec<&'a str>> {
        if !matches!(self.segments.first(), Some(&("crate" | "self" | "super"))) {
            return None;
        }
        let mut place = [module, &self.inside].concat();
        for segment in &self.segments {
            match *segment {
                "crate" => place.clear(),
                "self" => {}
                "super" => drop(place.pop()),
                name => place.push(name),
            }
        }
        Some(place)
    }

    /// Whether `a::b` stands somewhere in the path.
    fn contains(&self, part: &str) -> bool {
        let part: Vec<_> = part.split("::").collect();
        self.segments.windows(part.len()).any(|window| window == part)
    }
}

fn paths<'a>(tokens: &[Token<'a>]) -> Vec<Path<'a>> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut found = Vec::new();
    let mut modules: Vec<(&str, usize)> = Vec::new(); // with the depth of braces around them
    let mut depth = 0_usize;
    let mut at = 0;
    while at < tokens.len() {
        let inside = || modules.iter().map(|(name, _)| *name).collect();
        match text(at) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                modules.pop_if(|(_, outside)| *outside == depth);
            }
            "mod" if text(at + 2) == "{" => modules.push((text(at + 1), depth)),
            // `use<'a>` is a bound, not an import.
            "use" if text(at + 1) != "<" => {
                let mut leaves = Vec::new();
                at = use_tree(tokens, at + 1, &[], &mut leaves);
                found.extend(leaves.into_iter().map(|(line, segments)| Path {
                    line,
                    segments,
                    imported: true,
                    inside: inside(),
                }));
            }
            word if is_name(word) => {
                let start = at;
                while text(at + 1) == "::" && is_name(text(at + 2)) {
                    at += 2;
                }
                let segments = tokens[start..=at].iter().step_by(2).map(|token| token.text).collect();
                found.push(Path { line: tokens[start].line, segments, imported: false, inside: inside() });
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Collects the leaves of one tree, `a::{b, c::d as e, f::*}`, and returns where it ends.
fn use_tree<'a>(
    tokens: &[Token<'a>],
    start: usize,
    prefix: &[&'a str],
    leaves: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let mut path = prefix.to_vec();
    let mut at = start;
    while let Some(token) = tokens.get(at) {
        match token.text {
            "," | "}" | ";" => break,
            "{" => {
                while tokens.get(at).is_some_and(|token| matches!(token.text, "{" | ",")) {
                    at = use_tree(tokens, at + 1, &path, leaves);
                }
                return at + 1;
            }
            "as" => at += 1,
            "self" if !path.is_empty() => {}
            name if is_name(name) => path.push(name),
            _ => {} // `::` and `*`
        }
        at += 1;
    }
    // A trailing comma is no leaf.
    if at > start {
        leaves.push((tokens[start].line, path));
    }
    at
}

/// The line of the first `#[cfg(test)] mod`, which may be visible to others.
fn start_of_tests(tokens: &[Token<'_>]) -> Option<usize> {
    let opening = ["#", "[", "cfg", "(", "test", ")", "]"];
    let visibility = ["pub", "(", "crate", "super", ")"];
    let at = tokens.windows(opening.len()).enumerate().find(|(at, window)| {
        let mut item = tokens[at + opening.len()..].iter().map(|token| token.text);
        window.iter().map(|token| token.text).eq(opening)
            && item.find(|text| !visibility.contains(text)) == Some("mod")
    });
    at.map(|(_, window)| window[0].line)
}

/// Each function that has a body: its name, its line, its length in lines.
fn functions<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        // `fn(` is a type.
        if pair[0].text != "fn" || !is_name(pair[1].text) {
            continue;
        }
        let mut depth = 0_usize;
        for token in &tokens[at..] {
            match token.text {
                ";" if depth == 0 => break,
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && token.text == "}" {
                found.push((pair[1].text, pair[0].line, token.line - pair[0].line + 1));
                break;
            }
        }
    }
    found
}

// === the lexer: words, `::` and single characters; no comments, literals in quotes or lifetimes

#[derive(Debug, PartialEq)]
struct Token<'a> {
    line: usize,
    text: &'a str,
}

fn lex(mut rest: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut line = 1;
    while !rest.is_empty() {
        let (length, is_token) = lexeme(rest);
        let (text, after) = rest.split_at(length.min(rest.len()));
        if is_token {
            tokens.push(Token { line, text });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of what `rest` begins with, and whether it is a token.
fn lexeme(rest: &str) -> (usize, bool) {
    let (word, after) = rest.split_at(word_length(rest));
    let quote = after.chars().next().unwrap_or_default();
    match (word, quote) {
        ("", '/') if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
        ("", '/') if rest.starts_with("/*") => (block_comment(rest), false),
        ("r" | "br" | "cr", '"' | '#') => match raw_string(after) {
            Some(length) => (word.len() + length, false),
            None => (word.len() + 1, false), // `r#` of a raw identifier
        },
        ("" | "b" | "c", '"') => (word.len() + quoted(after), false),
        ("b", '\'') => (word.len() + quoted(after), false),
        ("", '\'') => (char_or_lifetime(rest), false),
        ("", ':') if rest.starts_with("::") => (2, true),
        ("", other) => (other.len_utf8(), !other.is_whitespace()),
        _ => (word.len(), true),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word_length(text: &str) -> usize {
    text.len() - text.trim_start_matches(is_word).len()
}

/// Words that can be a path's segment; numbers can't.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| is_word(c) && !c.is_numeric())
}

/// These nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        match text.as_bytes()[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// `"…"` or `#"…"#`, after the `r`.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text.len() - text.trim_start_matches('#').len();
    let content = text[hashes..].strip_prefix('"')?;
    let closing = format!("\"{}", "#".repeat(hashes));
    Some(content.find(&closing).map_or(text.len(), |at| hashes + 1 + at + closing.len()))
}

/// From a quote to its like, past escapes.
fn quoted(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn char_or_lifetime(text: &str) -> usize {
    let mut inside = text.chars().skip(1);
    match (inside.next(), inside.next()) {
        (Some('\\'), _) | (Some(_), Some('\'')) => quoted(text),
        _ => 1 + word_length(&text[1..]),
    }
}

// === a rule that cannot fail is no rule: each is shown a small tree that breaks it

mod rules {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let source = |&(path, text): &(&str, &str)| Source { path: path.into(), text: text.into() };
        Tree { sources: files.iter().map(source).collect(), config: None }
    }

    #[test]
    fn an_arrow_is_found_however_it_is_written() {
        let store = "use crate::{\n    domain::id,\n    service::{self, view},\n};\n";
        let found = wrong_arrows(&tree(&[("src/store.rs", store)]));
        let line = "src/store.rs:3: `store` may not import `service`";
        assert_eq!(found, [line, line]);

        for code in [
            "use crate::http;",
            "use super::super::http::links as l;",
            "fn f() { crate::http::f::<u8>(); }",
            "fn f() -> Config { Config { port: 1, ..crate::http::config() } }",
            "macro_rules! m { () => { $crate::http::f() } }",
            "mod inner { use super::super::super::http::links; }",
            "fn f() { { } mod inner { } super::super::http::f(); }",
            "#[cfg(test)]\nmod tests { use crate::http::links; }",
        ] {
            let found = wrong_arrows(&tree(&[("src/service/submit.rs", code)]));
            assert_eq!(found.len(), 1, "{code}: {found:?}");
            assert!(found[0].ends_with("`service` may not import `http`"), "{found:?}");
        }
    }

    #[test]
    fn an_allowed_arrow_is_not_found() {
        let submit = r##"
            //! See [`crate::http::links`]. /* crate::http */
            use std::http::x;
            use super::{Service, cancel::{self, Cancel as _}};
            use crate::{config::Limits, domain::{id::JobId, job::*},};
            pub(crate) fn f<'a>(text: &'a str) -> impl Iterator<Item = char> + use<'a> { self::g('"', "crate::http", r#"crate::http"#) }
            mod tests { use super::*; use super::super::Service; }
        "##;
        let main = "fn main() -> std::process::ExitCode { darkroom::cli::run() }";
        assert_eq!(wrong_arrows(&tree(&[("src/service/submit.rs", submit), ("src/main.rs", main)])), [""; 0]);
    }

    #[test]
    fn rooms_are_entered_by_name() {
        let broken = [
            ("src/attic.rs", "", "src/attic.rs:1: room `attic` has no row in the table of rooms"),
            ("src/worker.rs", "use crate::helper;", "src/worker.rs:1: `crate::helper` is no room"),
            ("src/worker.rs", "use super::*;", "src/worker.rs:1: imports the whole crate; name the room"),
            (
                "src/main.rs",
                "use darkroom::{cli, app};",
                "src/main.rs:1: main.rs may use `darkroom::cli` only",
            ),
            ("src/main.rs", "use darkroom as d;", "src/main.rs:1: main.rs may use `darkroom::cli` only"),
        ];
        for (path, text, finding) in broken {
            assert_eq!(wrong_arrows(&tree(&[(path, text)])), [finding]);
        }
    }

    #[test]
    fn every_arrow_of_the_table_leads_down_to_a_room() {
        let place = |room: &str| ROOMS.iter().position(|(name, _)| *name == room);
        for (room, allowed) in ROOMS {
            for to in allowed.split_whitespace() {
                assert!(place(to) > place(room), "{room} -> {to} is no room, or closes a circle");
            }
        }
    }

    #[test]
    fn crates_outside_their_rooms() {
        let broken = [
            ("src/service.rs", "fn f(db: &sled::Db) {}", "src/service.rs:1: `sled` stays in: store"),
            ("src/app.rs", "use ::hyper::server;", "src/app.rs:1: `hyper` stays in: http notify cli"),
            ("src/main.rs", "use reqwest;", "src/main.rs:1: `reqwest` stays in: notify cli"),
            ("src/domain/job.rs", "#[tokio::test]", "src/domain/job.rs:1: `domain` may not use `tokio`"),
            ("src/domain.rs", "use std::{fmt, fs::File};", "src/domain.rs:1: `domain` may not use `std::fs`"),
            (
                "src/domain.rs",
                "use std::net::{IpAddr, TcpStream};",
                "src/domain.rs:1: `domain` may not use `net::TcpStream`",
            ),
        ];
        for (path, text, finding) in broken {
            assert_eq!(strayed_crates(&tree(&[(path, text)])), [finding]);
        }
        let fine = [
            ("src/store/sled/batch.rs", "use sled::Batch; use tokio::sync;"),
            ("src/http.rs", "use warp::Reply;"),
        ];
        assert_eq!(strayed_crates(&tree(&fine)), [""; 0]);
    }

    #[test]
    fn a_clock_read_outside_the_clock() {
        for read in
            ["tokio::time::Instant::now()", "SystemTime::now", "jiff::Timestamp::now()", "Zoned::now()"]
        {
            let code = format!("\nfn f() {{ {read}; }}");
            let found = clock_reads(&tree(&[("src/clock.rs", &code), ("src/worker.rs", &code)]));
            assert_eq!(found.len(), 1);
            assert!(found[0].starts_with("src/worker.rs:2: "), "{found:?}");
        }
    }

    #[test]
    fn banned_words_and_marks() {
        let code = "fn f() { unsafe { dbg!(1) } }\nfn g() { todo!() }\n// TODO: h\nfn todo() { \"unsafe\"; unimplemented!() }";
        let found = banned_words(&tree(&[("src/app.rs", code)]));
        assert_eq!(
            found,
            [
                "src/app.rs:1: `unsafe` is banned",
                "src/app.rs:1: `dbg` is banned",
                "src/app.rs:2: `todo` is banned",
                "src/app.rs:4: `unimplemented` is banned",
                "src/app.rs:3: a TODO: do it, or file it as an issue",
            ]
        );
    }

    #[test]
    fn files_that_nobody_names() {
        let found = dead_files(&tree(&[
            ("src/lib.rs", "pub mod store;\n// mod blobs;\n"),
            ("src/main.rs", ""),
            ("src/blobs.rs", ""),
            ("src/http/mod.rs", ""),
            ("src/store.rs", "mod sled;"),
            ("src/store/sled.rs", "#[cfg(test)]\nmod suite;"),
            ("src/store/sled/suite.rs", ""),
            ("src/store/sled/old.rs", ""),
        ]));
        assert_eq!(
            found,
            [
                "src/blobs.rs:1: dead: src/lib.rs has no `mod blobs;`",
                "src/http/mod.rs:1: the house has `foo.rs` + `foo/`, never mod.rs",
                "src/store/sled/old.rs:1: dead: src/store/sled.rs has no `mod old;`",
            ]
        );
    }

    #[test]
    fn long_files_and_functions() {
        let tests =
            format!("#[cfg(test)]\npub(crate) mod tests {{\nfn long() {{{}}}\n}}\n", "\n".repeat(600));
        let function =
            |lines: usize| format!("fn f(x: [u8; 4]) -> u8\n{{ {{ }}{}}}\n", "\n".repeat(lines - 2));
        let file = |lines: usize| "// line\n".repeat(lines) + &tests;

        let fitting =
            [("src/app.rs", function(70) + &tests), ("src/cli.rs", file(500)), ("src/main.rs", file(40))];
        let broken =
            [("src/app.rs", function(71) + &tests), ("src/cli.rs", file(501)), ("src/main.rs", file(41))];
        let found = |files: &[(&str, String)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            long_parts(&tree(&files))
        };
        assert_eq!(found(&fitting), [""; 0]);
        assert_eq!(
            found(&broken),
            [
                "src/app.rs:1: `f` has 71 lines; at most 70",
                "src/cli.rs:1: 501 lines without the tests; at most 500",
                "src/main.rs:1: 41 lines without the tests; at most 40",
            ]
        );
    }

    #[test]
    fn keys_without_a_comment() {
        let found =
            |config: &str| unexplained_keys(&Tree { sources: Vec::new(), config: Some(config.into()) });
        let fine = "[server]\n# Where to listen.\nlisten = \"[::1]:80\" # a = 1\n\n# Names.\nlist = [\n  \"a=b\", # [\n  \"c\",\n]\n# Limit.\nlimit = 1\n";
        assert_eq!(found(fine), [""; 0]);
        assert_eq!(found("# One.\na = 1\nb = 2\n"), ["config/default.toml:3: no comment above `b`"]);
        assert_eq!(found("# One.\n\na.b = 1\n"), ["config/default.toml:3: no comment above `a.b`"]);
        assert_eq!(unexplained_keys(&tree(&[])), ["config/default.toml:1: the file is missing"]);
    }
}

mod lexer {
    use super::*;

    fn words(source: &str) -> Vec<&str> {
        lex(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_are_no_code() {
        assert_eq!(words("a // b\nc /* d /* e */ \" f */ g /// h\n/**/i //"), ["a", "c", "g", "i"]);
    }

    #[test]
    fn strings_are_no_code() {
        assert_eq!(words(r#"a("b \" c", b"d", c"e\\", "//")f"#), ["a", "(", ",", ",", ",", ")", "f"]);
        assert_eq!(words(r###"a r"b\" c r#"d " e"# f br##"g "# h"## i cr"" "###), ["a", "c", "f", "i"]);
    }

    #[test]
    fn characters_are_not_lifetimes() {
        assert_eq!(words(r#"f::<'a>('"', b'"', '\'', '\u{7f}', ' ', 'é', x)"#), {
            ["f", "::", "<", ">", "(", ",", ",", ",", ",", ",", ",", "x", ")"]
        });
        assert_eq!(words("<'a, 'b: 'a + 'static> 'outer: loop"), ["<", ",", ":", "+", ">", ":", "loop"]);
    }

    #[test]
    fn raw_identifiers_are_words() {
        assert_eq!(words("r#type r b br"), ["type", "r", "b", "br"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let tokens = lex("\"\n\" a /*\n*/ b r#\"\n\"# // \n c");
        assert_eq!(tokens.iter().map(|token| (token.line, token.text)).collect::<Vec<_>>(), {
            [(2, "a"), (3, "b"), (5, "c")]
        });
    }

    #[test]
    fn what_is_cut_short_ends() {
        for source in ["\"a", "'", "'\\", "r#\"a", "/* a", "b'", "r#", "\"\\"] {
            assert_eq!(words(source), [""; 0], "{source}");
        }
    }
}
