//! What `darkroom listen` is told to answer: a list of steps, each an answer or a misbehaviour.

use std::str::FromStr;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use percent_encoding::percent_decode_str;

use super::misbehave::{LONGEST, Misbehaviour};

const MAX_STEPS: usize = 1000;
const MAX_TIMES: u64 = 1_000_000;
const RETRY_AFTER: HeaderName = http::header::RETRY_AFTER;
/// `Retry-After` as a date, given as seconds from the moment of the answer.
const RETRY_AFTER_DATE: &str = "retry-after-date";

/// The whole syntax, for the help and for who got it wrong.
pub(super) const SYNTAX: &str = "\
A script is a list of steps, separated by commas:
  [delay=TIME:]ANSWER[*TIMES]
The last step goes on for ever; with --cycle the first follows it.
ANSWER is one of
  200 to 999          this status, with headers: 429:retry-after=5, 410:webhook-delivery=disable;
                      retry-after-date=5 is a Retry-After that names the time in 5 s
  redirect=URL        302 to there; others as 307:location=/there
  pass                what is answered without a script: 200, or the status of --forward-to
  timeout             nothing, and the connection stays open
  stall-head          half of the header, then nothing
  stall-body          half of the body, then nothing
  slow=TIME           one byte, and the next after this time
  endless-body        a body without end
  header-flood        a header without end
  gzip-bomb           a body of 100 KiB that unpacks to 100 MiB
  garbage             what is no HTTP
  close, close-body   the connection ends without an answer, or within the body
  reset, reset-body   it is reset instead
TIME is 250ms, 2s or 1m, or seconds without a unit, at most 10m.
In a header's value write , as %2C, : as %3A, * as %2A and % as %25; in a URL , and * likewise.";

/// What to answer, request after request.
#[derive(Debug, Clone)]
pub(super) struct Script {
    steps: Vec<(Step, u64)>,
    cycle: bool,
}

impl Script {
    /// Joins lists of steps; `None` when there is no step.
    pub(super) fn join(lists: Vec<Steps>, cycle: bool) -> Option<Self> {
        let steps: Vec<_> = lists.into_iter().flat_map(|Steps(steps)| steps).collect();
        (!steps.is_empty()).then_some(Self { steps, cycle })
    }

    /// The step for request `n`, from 0.
    pub(super) fn step(&self, mut n: u64) -> Option<&Step> {
        if self.cycle {
            let round = self.steps.iter().map(|(_, times)| times).sum::<u64>();
            n = n.checked_rem(round)?;
        }
        for (step, times) in &self.steps {
            match n.checked_sub(*times) {
                None => return Some(step),
                Some(left) => n = left,
            }
        }
        self.steps.last().map(|(step, _)| step)
    }
}

/// One step: an answer, perhaps after a delay.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// As it was written, without how often.
    pub(super) text: String,
    pub(super) delay: Duration,
    pub(super) answer: Answer,
}

#[derive(Debug, Clone)]
pub(super) enum Answer {
    /// As without a script.
    Pass,
    Status(Status),
    Misbehave(Misbehaviour),
}

/// A proper answer.
#[derive(Debug, Clone)]
pub(super) struct Status {
    pub(super) code: StatusCode,
    headers: HeaderMap,
    retry_after_date: Option<SignedDuration>,
}

impl Status {
    /// The header of an answer that is given now.
    pub(super) fn headers(&self, now: Timestamp) -> HeaderMap {
        let mut headers = self.headers.clone();
        let date = self.retry_after_date.and_then(|ahead| now.checked_add(ahead).ok());
        let date = date.and_then(|date| DateTimePrinter::new().timestamp_to_rfc9110_string(&date).ok());
        if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
            headers.insert(RETRY_AFTER, date);
        }
        headers
    }
}

/// The steps that one `--respond` lists, each with how often.
#[derive(Debug, Clone)]
pub(super) struct Steps(Vec<(Step, u64)>);

/// A step that cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("step {number} `{step}`: {problem}\n\n{SYNTAX}")]
pub(super) struct ScriptError {
    number: usize,
    step: String,
    problem: String,
}

impl FromStr for Steps {
    type Err = ScriptError;

    fn from_str(text: &str) -> Result<Self, ScriptError> {
        let mut steps = Vec::new();
        for (index, written) in text.split(',').enumerate() {
            let written = written.trim();
            let wrong = |problem| ScriptError { number: index + 1, step: written.to_owned(), problem };
            if index >= MAX_STEPS {
                return Err(wrong(format!("there are more than {MAX_STEPS} steps")));
            }
            steps.push(step(written).map_err(wrong)?);
        }
        Ok(Self(steps))
    }
}

fn step(written: &str) -> Result<(Step, u64), String> {
    let (text, times) = match written.rsplit_once('*') {
        None => (written, 1),
        Some((text, times)) => (text, number(times, "after * comes how often", 1..=MAX_TIMES)?),
    };
    let (delay, answer) = match text.strip_prefix("delay=") {
        None => (Duration::ZERO, text),
        Some(rest) => {
            let (delay, answer) =
                rest.split_once(':').ok_or("after the delay comes a colon and an answer: delay=2s:200")?;
            (duration(delay)?, answer)
        }
    };
    Ok((Step { text: text.to_owned(), delay, answer: parse_answer(answer)? }, times))
}

fn parse_answer(text: &str) -> Result<Answer, String> {
    if text == "pass" {
        return Ok(Answer::Pass);
    }
    if let Some(url) = text.strip_prefix("redirect=") {
        let location = HeaderValue::from_str(url).ok().filter(|url| !url.is_empty());
        let location = location.ok_or("a redirect leads to a URL")?;
        let headers = HeaderMap::from_iter([(LOCATION, location)]);
        return Ok(Answer::Status(Status { code: StatusCode::FOUND, headers, retry_after_date: None }));
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return status(text).map(Answer::Status);
    }
    misbehaviour(text).map(Answer::Misbehave)
}

fn status(text: &str) -> Result<Status, String> {
    let mut parts = text.split(':');
    let code = number(parts.next().unwrap_or_default(), "a status is a number", 200..=999)?;
    let code = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
    let code = code.ok_or("a status is a number")?;
    let mut status = Status { code, headers: HeaderMap::new(), retry_after_date: None };
    for part in parts {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("`{part}` is no header; one is written name=value"))?;
        if name == RETRY_AFTER_DATE {
            let seconds = value.parse().map_err(|_| format!("{RETRY_AFTER_DATE} is a number of seconds"))?;
            status.retry_after_date = Some(SignedDuration::from_secs(seconds));
            continue;
        }
        let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is no header's name"))?;
        if name == CONTENT_LENGTH || name == TRANSFER_ENCODING {
            return Err(format!("{name} is not free to choose; close-body and stall-body give a wrong one"));
        }
        let bytes: Vec<u8> = percent_decode_str(value).collect();
        let value =
            HeaderValue::from_bytes(&bytes).map_err(|_| format!("{name} cannot have such a value"))?;
        status.headers.append(name, value);
    }
    Ok(status)
}

fn misbehaviour(text: &str) -> Result<Misbehaviour, String> {
    Ok(match text {
        "timeout" => Misbehaviour::Timeout,
        "stall-head" => Misbehaviour::StallHead,
        "stall-body" => Misbehaviour::StallBody,
        "endless-body" => Misbehaviour::EndlessBody,
        "header-flood" => Misbehaviour::HeaderFlood,
        "gzip-bomb" => Misbehaviour::GzipBomb,
        "garbage" => Misbehaviour::Garbage,
        "close" => Misbehaviour::Close,
        "close-body" => Misbehaviour::CloseBody,
        "reset" => Misbehaviour::Reset,
        "reset-body" => Misbehaviour::ResetBody,
        _ => match text.strip_prefix("slow=") {
            Some(time) => Misbehaviour::Slow(duration(time)?),
            None => return Err("there is no such answer".to_owned()),
        },
    })
}

fn number(text: &str, what: &str, range: std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("{what}, from {} to {}", range.start(), range.end()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.parse::<SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok()),
    };
    parsed
        .filter(|time| *time <= LONGEST)
        .ok_or_else(|| format!("`{text}` is no time; one is written 250ms, 2s or 1m, and is at most 10m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str, cycle: bool) -> Script {
        Script::join(vec![text.parse().unwrap()], cycle).unwrap()
    }

    fn texts(script: &Script, requests: u64) -> Vec<&str> {
        (0..requests).map(|n| script.step(n).unwrap().text.as_str()).collect()
    }

    #[test]
    fn steps_are_taken_in_turn_and_the_last_goes_on() {
        let text = "500*2, timeout,200";
        assert_eq!(texts(&script(text, false), 6), ["500", "500", "timeout", "200", "200", "200"]);
        assert_eq!(texts(&script(text, true), 6), ["500", "500", "timeout", "200", "500", "500"]);
        let lists = vec!["500".parse().unwrap(), "410".parse().unwrap()];
        assert_eq!(texts(&Script::join(lists, false).unwrap(), 3), ["500", "410", "410"]);
        assert!(Script::join(Vec::new(), true).is_none());
    }

    #[test]
    fn a_status_has_headers_and_a_delay() {
        let script = script("delay=250ms:429:retry-after=5:x-note=a%2C%20b%3A*3", false);
        let step = script.step(0).unwrap();
        assert_eq!(step.delay, Duration::from_millis(250));
        let Answer::Status(status) = &step.answer else { panic!("{step:?}") };
        let headers = status.headers(Timestamp::UNIX_EPOCH);
        assert_eq!(status.code, StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(
            (&headers["retry-after"], &headers["x-note"]),
            (&"5".parse().unwrap(), &"a, b:".parse().unwrap())
        );
    }

    #[test]
    fn retry_after_as_a_date_counts_from_the_answer() {
        let script = script("503:retry-after-date=90", false);
        let Answer::Status(status) = &script.step(0).unwrap().answer else { panic!() };
        let headers = status.headers(Timestamp::from_second(1_614_265_330).unwrap());
        assert_eq!(headers[RETRY_AFTER], "Thu, 25 Feb 2021 15:03:40 GMT");
    }

    #[test]
    fn a_redirect_keeps_its_url() {
        let script = script("redirect=https://a.example:8443/x?y=%2C*2,200", false);
        let Answer::Status(status) = &script.step(1).unwrap().answer else { panic!() };
        assert_eq!(status.headers(Timestamp::UNIX_EPOCH)[LOCATION], "https://a.example:8443/x?y=%2C");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_step() {
        for (text, part) in [
            ("", "no such answer"),
            ("200,,500", "step 2 ``"),
            ("200,explode", "step 2 `explode`"),
            ("100", "from 200 to 999"),
            ("500*0", "how often"),
            ("500*many", "how often"),
            ("200:retry-after", "name=value"),
            ("200:content-length=3", "not free to choose"),
            ("200:bad name=3", "no header's name"),
            ("200:x=%0A", "such a value"),
            ("503:retry-after-date=soon", "number of seconds"),
            ("redirect=", "leads to a URL"),
            ("delay=2s", "a colon and an answer"),
            ("delay=11m:200", "at most 10m"),
            ("slow=fast", "no time"),
            ("slow=-1s", "no time"),
        ] {
            let error = text.parse::<Steps>().unwrap_err().to_string();
            assert!(error.contains(part) && error.contains("stall-body"), "{text}: {error}");
        }
        assert!("200,".repeat(MAX_STEPS + 1).parse::<Steps>().is_err());
    }
}
