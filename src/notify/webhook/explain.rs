//! Why a callback does not verify: what it would have to be for its signature to be right.
//!
//! The headers are looked at first. Then its signatures are compared with those of what may have been signed
//! instead: with the secret read differently, under other headers, with the body as it may have been before
//! something changed it, at another time. What fits tells what went wrong. Neither a secret nor a signature
//! that was not there before is in what is returned.

mod body;
mod finding;
mod token;

use http::HeaderMap;
use jiff::Timestamp;

pub use self::body::{BodyChange, Escapes, Layout, Style};
pub use self::finding::{Content, Explanation, Finding, Form, KeyReading};
use self::token::Token;
use super::signature::{self, HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, VerifyError, mac};
use crate::domain::secret::SigningSecret;

/// What stands before `id`, `timestamp` and `signature` in the names of these headers elsewhere, or where
/// something took a header for a variable.
const OTHER_PREFIXES: [&str; 6] =
    ["svix-", "x-webhook-", "x-svix-", "webhook_", "http_webhook_", "http-webhook-"];
/// Unix seconds have ten digits, and will for centuries.
const FIRST_MILLISECONDS: i64 = 100_000_000_000;
/// How far from its timestamp another attempt is looked for, if the body is short.
const SEARCH_SECONDS: i64 = 6 * 60 * 60;
/// What this search may hash.
const SEARCH_BYTES: usize = 64 << 20;
/// More than any rotation has.
const MAX_SECRETS: usize = 10;

/// Explains what a receiver got, with the secrets it has, as they are written.
#[must_use]
pub fn explain(secrets: &[&str], headers: &HeaderMap, body: &[u8], now: Timestamp) -> Explanation {
    let mut findings = Vec::new();
    let ids = fields(headers, HEADER_ID, &mut findings);
    let times = fields(headers, HEADER_TIMESTAMP, &mut findings);
    let signatures = fields(headers, HEADER_SIGNATURE, &mut findings);
    if let Some(time) = times.first() {
        findings.extend(clock(time.value, now));
    }
    if body.is_empty() {
        findings.push(Finding::EmptyBody);
    }
    let header: Vec<_> = signatures.iter().map(|field| field.value).collect();
    let tokens = if header.is_empty() { Vec::new() } else { token::read(&header.join(" "), &mut findings) };
    let secrets = &secrets[..secrets.len().min(MAX_SECRETS)];
    let keys: Vec<_> = (1..).zip(secrets).flat_map(|(secret, text)| readings(secret, text)).collect();
    for (secret, text) in (1..).zip(secrets) {
        if text.trim().parse::<SigningSecret>().is_err() {
            findings.push(Finding::MalformedSecret { secret });
        }
    }

    let search = Search { keys, ids, times, tokens, body };
    if search.keys.is_empty() {
        findings.push(Finding::NoSecret);
    } else if let Some(found) = search.run() {
        findings.extend(found);
    } else if !header.is_empty() && !search.ids.is_empty() && !search.times.is_empty() {
        findings.extend(search.tokens.into_iter().flat_map(|token| token.faults));
        findings.push(Finding::NothingFits);
    }
    let verified = secrets.iter().any(|text| {
        let secret = text.trim().parse::<SigningSecret>();
        secret.is_ok_and(|secret| signature::verify(&secret, headers, body, now).is_ok())
    });
    Explanation { verified, findings }
}

/// A header's value, and what is wrong with how it came.
struct Field<'h> {
    value: &'h str,
    fault: Option<Finding>,
}

/// The values of a header: those under its own name first, then those that came under another one.
fn fields<'h>(headers: &'h HeaderMap, header: &'static str, findings: &mut Vec<Finding>) -> Vec<Field<'h>> {
    let mut fields = Vec::new();
    for value in headers.get_all(header) {
        match value.to_str() {
            Ok(value) => fields.push(Field { value, fault: None }),
            Err(_) => findings.push(Finding::NotText { header }),
        }
    }
    if fields.len() > 1 {
        findings.push(Finding::RepeatedHeader { header });
    }
    for field in fields.iter_mut().skip(1) {
        field.fault = Some(Finding::OtherHeader { header, instead: header.to_owned() });
    }
    let missing = !headers.contains_key(header);
    let suffix = header.trim_start_matches("webhook-");
    let others = OTHER_PREFIXES.iter().map(|prefix| format!("{prefix}{suffix}"));
    let found: Vec<_> = others.filter(|name| headers.contains_key(name)).collect();
    if missing {
        findings.push(Finding::MissingHeader { header, found_as: found.first().cloned() });
    }
    for name in found {
        let values = headers.get_all(&name).into_iter().filter_map(|value| value.to_str().ok());
        let fault = (!missing).then(|| Finding::OtherHeader { header, instead: name.clone() });
        fields.extend(values.map(|value| Field { value, fault: fault.clone() }));
    }
    fields
}

/// What is wrong with a timestamp.
fn clock(text: &str, now: Timestamp) -> Option<Finding> {
    let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) else {
        return Some(Finding::TimestampNotSeconds);
    };
    if number >= FIRST_MILLISECONDS {
        return Some(Finding::TimestampInMilliseconds);
    }
    match signature::check_age(number, now) {
        Err(VerifyError::TooOld { age_seconds }) => Some(Finding::TooOld { age_seconds }),
        Err(VerifyError::TooNew { ahead_seconds }) => Some(Finding::TooNew { ahead_seconds }),
        _ => None,
    }
}

/// A key that a secret may have been read as.
struct Key {
    bytes: Vec<u8>,
    /// From 1.
    secret: usize,
    reading: Option<KeyReading>,
    /// The likeliest of its secret.
    first: bool,
}

/// What a written secret may be read as, the right way first.
fn readings(secret: usize, text: &str) -> Vec<Key> {
    let trimmed = text.trim();
    let rest = trimmed.strip_prefix(SigningSecret::PREFIX).unwrap_or(trimmed);
    let parse = |text: &str| text.parse::<SigningSecret>().ok().map(|key| key.expose_bytes().to_vec());
    let prefixed = |rest: &str| parse(&format!("{}{rest}", SigningSecret::PREFIX));
    let raw = |text: &str| Some(text.as_bytes().to_vec());
    let is_url_safe = rest.contains(['-', '_']);
    let readings = [
        (None, parse(trimmed)),
        (Some(KeyReading::PrefixMissing), prefixed(rest).filter(|_| rest == trimmed)),
        (
            Some(KeyReading::UrlSafe),
            prefixed(&rest.replace('-', "+").replace('_', "/")).filter(|_| is_url_safe),
        ),
        (Some(KeyReading::WholeText), raw(trimmed)),
        (Some(KeyReading::TextAfterPrefix), raw(rest).filter(|_| rest != trimmed)),
        (Some(KeyReading::LineEndIncluded), raw(text).filter(|_| text != trimmed)),
        (Some(KeyReading::LineEndIncluded), raw(&format!("{trimmed}\n"))),
    ];
    let found = readings.into_iter().filter_map(|(reading, bytes)| Some((reading, bytes?)));
    let found = found.filter(|(_, bytes)| !bytes.is_empty());
    found.enumerate().map(|(n, (reading, bytes))| Key { bytes, secret, reading, first: n == 0 }).collect()
}

/// All that a callback's signature may be of.
struct Search<'h> {
    keys: Vec<Key>,
    ids: Vec<Field<'h>>,
    times: Vec<Field<'h>>,
    tokens: Vec<Token>,
    body: &'h [u8],
}

impl Search<'_> {
    /// What fits, and what is wrong with it. One thing at a time: two that went wrong are rarely told apart.
    fn run(&self) -> Option<Vec<Finding>> {
        self.headers().or_else(|| self.contents()).or_else(|| self.bodies()).or_else(|| self.seconds())
    }

    /// The signature that is of these parts.
    fn fits(&self, key: &Key, parts: &[&[u8]]) -> Option<Vec<Finding>> {
        let mac = mac(&key.bytes, parts);
        let token = self.tokens.iter().find(|token| token.is(&mac))?;
        let mut findings = vec![Finding::Matches { signature: token.position, secret: key.secret }];
        findings.extend(key.reading.map(|reading| Finding::KeyMisread { secret: key.secret, reading }));
        findings.extend(token.faults.iter().cloned());
        Some(findings)
    }

    /// The likeliest key of each secret.
    fn likeliest(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter().filter(|key| key.first)
    }

    /// With every key and every header.
    fn headers(&self) -> Option<Vec<Finding>> {
        for id in &self.ids {
            for time in &self.times {
                let head = format!("{}.{}.", id.value, time.value);
                let found = self.keys.iter().find_map(|key| self.fits(key, &[head.as_bytes(), self.body]));
                if let Some(mut found) = found {
                    found.extend([&id.fault, &time.fault].into_iter().flatten().cloned());
                    return Some(found);
                }
            }
        }
        None
    }

    /// Of something else than the standard says.
    fn contents(&self) -> Option<Vec<Finding>> {
        let id = self.ids.first().map_or("", |id| id.value);
        let time = self.times.first().map_or("", |time| time.value);
        let seconds = time.parse::<i64>().ok().map(|number| (number / 1000).to_string());
        let body_id = serde_json::from_slice::<serde_json::Value>(self.body)
            .ok()
            .and_then(|event| Some(event.get("id")?.as_str()?.to_owned()));
        let contents = [
            (Content::BodyAlone, Some(String::new())),
            (Content::TimestampAndBody, Some(format!("{time}."))),
            (Content::IdAndBody, Some(format!("{id}."))),
            (Content::Swapped, Some(format!("{time}.{id}."))),
            (Content::NoDots, Some(format!("{id}{time}"))),
            (Content::Seconds, seconds.map(|seconds| format!("{id}.{seconds}."))),
            (Content::IdOfBody, body_id.map(|id| format!("{id}.{time}."))),
        ];
        contents.into_iter().filter_map(|(content, head)| Some((content, head?))).find_map(
            |(content, head)| {
                self.likeliest().find_map(|key| {
                    let mut found = self.fits(key, &[head.as_bytes(), self.body])?;
                    found.push(Finding::OtherContent { content });
                    Some(found)
                })
            },
        )
    }

    /// Of the body before something changed it.
    fn bodies(&self) -> Option<Vec<Finding>> {
        let head = self.head()?;
        body::originals(self.body).find_map(|(change, body)| {
            self.likeliest().find_map(|key| {
                let mut found = self.fits(key, &[head.as_bytes(), &body])?;
                found.push(Finding::BodyChanged { change });
                Some(found)
            })
        })
    }

    /// At another time: the timestamp of one attempt came with the signature of another.
    fn seconds(&self) -> Option<Vec<Finding>> {
        let (id, time) = (self.ids.first()?.value, self.times.first()?.value.parse::<i64>().ok()?);
        let each = 2 * self.likeliest().count() * (self.body.len() + 256);
        let far = i64::try_from(SEARCH_BYTES / each.max(1)).unwrap_or(SEARCH_SECONDS).min(SEARCH_SECONDS);
        (1..=far).flat_map(|off| [-off, off]).find_map(|off| {
            let head = format!("{id}.{}.", time.checked_add(off)?);
            self.likeliest().find_map(|key| {
                let mut found = self.fits(key, &[head.as_bytes(), self.body])?;
                found.push(Finding::OtherAttempt { off_seconds: off });
                Some(found)
            })
        })
    }

    fn head(&self) -> Option<String> {
        Some(format!("{}.{}.", self.ids.first()?.value, self.times.first()?.value))
    }
}

#[cfg(test)]
mod tests;
