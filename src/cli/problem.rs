//! The service's errors: problem documents (RFC 9457), read leniently.

use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use super::output::printable;

/// What the service says of what it was sent, where the status alone does not.
const VALIDATION: &str = "validation";

/// A refusal, as the service explains it.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    /// When to ask again.
    pub(super) retry_after: Option<Duration>,
    document: Document,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Document {
    title: Option<String>,
    detail: Option<String>,
    code: Option<String>,
    request_id: Option<String>,
    errors: Vec<FieldProblem>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldProblem {
    field: Option<String>,
    detail: Option<String>,
}

impl Problem {
    /// A body that is no problem document (a proxy's page, nothing at all) leaves the status to speak.
    pub(super) fn read(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Self {
        Self { status, retry_after, document: serde_json::from_slice(body).unwrap_or_default() }
    }

    /// Whether the request could not be understood or a value in it is not valid, which repeating does not mend.
    pub(super) fn blames_the_command(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST || self.document.code.as_deref() == Some(VALIDATION)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Document { title, detail, code, request_id, errors } = &self.document;
        match title {
            Some(title) => f.write_str(&printable(title))?,
            None => write!(f, "the service answered {}", self.status)?,
        }
        if let Some(detail) = detail {
            write!(f, ": {}", printable(detail))?;
        }
        let references: Vec<_> = [code, request_id].into_iter().flatten().map(String::as_str).collect();
        if !references.is_empty() {
            write!(f, " ({})", printable(&references.join(", ")))?;
        }
        errors.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.field.as_deref().unwrap_or("request");
        let detail = self.detail.as_deref().unwrap_or("is not valid");
        write!(f, "{}: {}", printable(name), printable(detail))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> String {
        Problem::read(StatusCode::UNPROCESSABLE_ENTITY, None, body.as_bytes()).to_string()
    }

    #[test]
    fn a_problem_reads_as_title_detail_code_and_request() {
        let body = r#"{"type":"/problems/x","title":"Too large","detail":"9 of 8 bytes","code":"x","request_id":"req_1"}"#;
        assert_eq!(text(body), "Too large: 9 of 8 bytes (x, req_1)");
    }

    #[test]
    fn only_the_lines_are_ours() {
        let body = r#"{"title":"a\nb","detail":"c\u2028d","code":"\u001b","errors":[{"field":"x\ny","detail":"\u202e"}]}"#;
        assert_eq!(text(body), "a\u{fffd}b: c\u{fffd}d (\u{fffd})\n  x\u{fffd}y: \u{fffd}");
    }

    #[test]
    fn each_wrong_field_has_its_line() {
        let body = r#"{"title":"Invalid","errors":[{"field":"tags","detail":"too many"},{"field":"limit"}]}"#;
        assert_eq!(text(body), "Invalid\n  tags: too many\n  limit: is not valid");
    }

    #[test]
    fn what_is_no_problem_document_is_told_by_its_status() {
        for body in ["", "<html>", "[]", r#"{"title":7}"#] {
            assert_eq!(text(body), "the service answered 422 Unprocessable Entity", "{body}");
        }
    }
}
