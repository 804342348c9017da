//! Every error as a problem document (RFC 9457): the one place where an HTTP status is decided.

use std::time::Duration;

use http::header::{ALLOW, CONTENT_RANGE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode, StatusCode as S};
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::document;
use crate::domain::delivery::DeliveryState;
use crate::service::ServiceError;
use crate::service::clients::InvalidKey;
use crate::service::error::{FieldError, ImagingError, StoreError};
use crate::service::quotas::Exceeded;

/// How long a client that met a full queue or a full disk should wait.
const RETRY_WHEN_FULL: Duration = Duration::from_secs(5);

/// Makes whole seconds of a duration those after it.
const ALMOST_A_SECOND: Duration = Duration::from_millis(999);

/// How long a client should wait while the intake is paused.
const RETRY_WHEN_PAUSED: Duration = Duration::from_secs(30);

/// The kinds of problems, each with a page under `/problems/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Code {
    NotLocal,
    RouteNotFound,
    NotFound,
    MethodNotAllowed,
    InvalidParameter,
    MalformedMultipart,
    MalformedJson,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    HeaderTooLarge,
    RangeNotSatisfiable,
    UnsupportedMediaType,
    MediaTypeMismatch,
    Validation,
    CallbackUrlRejected,
    SourceUrlRejected,
    ImageUndecodable,
    ImageTooLarge,
    InvalidIdempotencyKey,
    IdempotencyKeyInFlight,
    IdempotencyKeyReused,
    QueueFull,
    TooManyUploads,
    TooManyTrials,
    Stopping,
    Paused,
    StorageFull,
    StateConflict,
    BackupRunning,
    Internal,
    Unauthenticated,
    Forbidden,
    QuotaExceeded,
    PreconditionFailed,
    MissingFilter,
    LinkInvalid,
    LinkExpired,
}

/// What a problem's page says, and its documents.
pub(super) struct Row {
    pub(super) code: Code,
    pub(super) status: StatusCode,
    pub(super) slug: &'static str,
    pub(super) title: &'static str,
    pub(super) advice: &'static str,
}

/// The catalogue, in the order of [`Code`].
#[rustfmt::skip]
pub(super) const CATALOGUE: [Row; 38] = [
    Row { code: Code::NotLocal, status: S::FORBIDDEN, slug: "not-local", title: "The request is not from this machine to this machine",
          advice: "Without API keys, only requests whose Host and Origin are localhost are answered; server.public_base_url names another host." },
    Row { code: Code::RouteNotFound, status: S::NOT_FOUND, slug: "route-not-found", title: "There is nothing at this URL",
          advice: "Start at / and follow the links." },
    Row { code: Code::NotFound, status: S::NOT_FOUND, slug: "not-found", title: "There is no such resource",
          advice: "The id is unknown, or belongs to another client." },
    Row { code: Code::MethodNotAllowed, status: S::METHOD_NOT_ALLOWED, slug: "method-not-allowed", title: "The method is not allowed here",
          advice: "The Allow header names the methods that are." },
    Row { code: Code::InvalidParameter, status: S::BAD_REQUEST, slug: "invalid-parameter", title: "A parameter is invalid",
          advice: "errors names each one; unknown parameters are refused." },
    Row { code: Code::MalformedMultipart, status: S::BAD_REQUEST, slug: "malformed-multipart", title: "The multipart body is malformed",
          advice: "Send multipart/form-data as RFC 7578 has it, to its end." },
    Row { code: Code::MalformedJson, status: S::BAD_REQUEST, slug: "malformed-json", title: "The body is not the JSON that is expected here",
          advice: "detail says where it differs; unknown members are refused." },
    Row { code: Code::RequestTimeout, status: S::REQUEST_TIMEOUT, slug: "request-timeout", title: "The request came too slowly",
          advice: "Send the body without long pauses, and not as a trickle." },
    Row { code: Code::PayloadTooLarge, status: S::PAYLOAD_TOO_LARGE, slug: "payload-too-large", title: "The request is too large",
          advice: "limit is the most that is taken, in bytes." },
    Row { code: Code::UriTooLong, status: S::URI_TOO_LONG, slug: "uri-too-long", title: "The URL is too long",
          advice: "limit is the most that path and query may have, in bytes; send fields as parts of multipart/form-data instead." },
    Row { code: Code::HeaderTooLarge, status: S::REQUEST_HEADER_FIELDS_TOO_LARGE, slug: "header-too-large", title: "The request's header is too large",
          advice: "detail says of what there is too much, and limit how much is taken." },
    Row { code: Code::RangeNotSatisfiable, status: S::RANGE_NOT_SATISFIABLE, slug: "range-not-satisfiable", title: "There are no such bytes",
          advice: "Content-Range says how many there are." },
    Row { code: Code::UnsupportedMediaType, status: S::UNSUPPORTED_MEDIA_TYPE, slug: "unsupported-media-type", title: "The media type is not supported",
          advice: "Send multipart/form-data with an image part, the picture itself as image/*, or application/json with a source_url: JPEG, PNG, WebP or GIF." },
    Row { code: Code::MediaTypeMismatch, status: S::UNSUPPORTED_MEDIA_TYPE, slug: "media-type-mismatch", title: "The picture is not what the request says it is",
          advice: "Name the type that the bytes have, or application/octet-stream." },
    Row { code: Code::Validation, status: S::UNPROCESSABLE_ENTITY, slug: "validation", title: "The request has invalid fields",
          advice: "errors names each one." },
    Row { code: Code::CallbackUrlRejected, status: S::UNPROCESSABLE_ENTITY, slug: "callback-url-rejected", title: "callback_url is not one that callbacks may go to",
          advice: "It must be a public https URL; reason says what stands against it." },
    Row { code: Code::SourceUrlRejected, status: S::UNPROCESSABLE_ENTITY, slug: "source-url-rejected", title: "source_url is not one that pictures may be fetched from",
          advice: "It must be a public https URL; reason says what stands against it." },
    Row { code: Code::ImageUndecodable, status: S::UNPROCESSABLE_ENTITY, slug: "image-undecodable", title: "The picture cannot be decoded",
          advice: "It is damaged or cut short; send it again whole. Of a JPEG or PNG that is cut short, allow_truncated=true takes what there is." },
    Row { code: Code::ImageTooLarge, status: S::UNPROCESSABLE_ENTITY, slug: "image-too-large", title: "The picture has too many pixels",
          advice: "Scale it down before sending it." },
    Row { code: Code::InvalidIdempotencyKey, status: S::BAD_REQUEST, slug: "idempotency-key-invalid", title: "Idempotency-Key is invalid",
          advice: "Use 1 to 255 visible ASCII characters, with or without quotes around them." },
    Row { code: Code::IdempotencyKeyInFlight, status: S::CONFLICT, slug: "idempotency-key-in-flight", title: "The first request with this Idempotency-Key is still under way",
          advice: "Wait, then repeat the request." },
    Row { code: Code::IdempotencyKeyReused, status: S::UNPROCESSABLE_ENTITY, slug: "idempotency-key-reused", title: "This Idempotency-Key was used with another payload",
          advice: "Use a new key for a new request." },
    Row { code: Code::QueueFull, status: S::SERVICE_UNAVAILABLE, slug: "queue-full", title: "The queue is full",
          advice: "Nothing was read of the picture; repeat the request after Retry-After." },
    Row { code: Code::TooManyUploads, status: S::SERVICE_UNAVAILABLE, slug: "too-many-uploads", title: "Too many uploads are under way",
          advice: "Nothing was read of the picture; repeat the request after Retry-After." },
    Row { code: Code::TooManyTrials, status: S::SERVICE_UNAVAILABLE, slug: "too-many-trials", title: "Too many trials of callbacks are under way",
          advice: "Nothing was sent; repeat the request after Retry-After." },
    Row { code: Code::Stopping, status: S::SERVICE_UNAVAILABLE, slug: "draining", title: "The service is stopping",
          advice: "Repeat the request after Retry-After." },
    Row { code: Code::Paused, status: S::SERVICE_UNAVAILABLE, slug: "intake-paused", title: "No jobs are taken in at the moment",
          advice: "An operator has paused the intake; repeat the request later." },
    Row { code: Code::StorageFull, status: S::INSUFFICIENT_STORAGE, slug: "storage-full", title: "There is no room left",
          advice: "Repeat the request later; what was accepted is not affected." },
    Row { code: Code::StateConflict, status: S::CONFLICT, slug: "state-conflict", title: "Its state does not allow this",
          advice: "Fetch it: its _links show what is possible now." },
    Row { code: Code::BackupRunning, status: S::CONFLICT, slug: "backup-running", title: "Another backup is under way",
          advice: "Repeat the request when that one has ended." },
    Row { code: Code::Internal, status: S::INTERNAL_SERVER_ERROR, slug: "internal", title: "Something went wrong on our side",
          advice: "Repeat the request; if it stays, report request_id." },
    Row { code: Code::Unauthenticated, status: S::UNAUTHORIZED, slug: "unauthenticated", title: "An API key is needed",
          advice: "Send a key that was not revoked: Authorization: Bearer dk_… An operator gives one out." },
    Row { code: Code::Forbidden, status: S::FORBIDDEN, slug: "forbidden", title: "This is for operators",
          advice: "The API key is good, and its client may not do this. _links show what it may." },
    Row { code: Code::QuotaExceeded, status: S::TOO_MANY_REQUESTS, slug: "quota-exceeded", title: "The client has used what it may",
          advice: "Repeat the request after Retry-After; violated-policies names the quota, RateLimit says what is left of those of a minute." },
    Row { code: Code::PreconditionFailed, status: S::PRECONDITION_FAILED, slug: "precondition-failed", title: "It is not as the request expects it",
          advice: "ETag is its entity tag now; fetch it, decide anew, and send that in If-Match." },
    Row { code: Code::MissingFilter, status: S::BAD_REQUEST, slug: "missing-filter", title: "What is meant is not said",
          advice: "Give at least one filter; dry_run=true shows what it matches." },
    Row { code: Code::LinkInvalid, status: S::FORBIDDEN, slug: "link-invalid", title: "The signature of the link is wrong",
          advice: "Use the link as it was given, to its last character." },
    Row { code: Code::LinkExpired, status: S::GONE, slug: "link-expired", title: "The link has ended",
          advice: "Whoever has an API key can make another: POST /v1/jobs/{id}/links." },
];

impl Code {
    pub(super) fn row(self) -> &'static Row {
        let row = &CATALOGUE[self as usize];
        debug_assert_eq!(row.code, self, "the catalogue is in the order of `Code`");
        row
    }
}

/// A problem on its way out; the envelope writes it, since it knows the request.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    code: Code,
    detail: Option<String>,
    errors: Vec<FieldError>,
    extension: Option<Extension>,
    header: Option<Box<(HeaderName, HeaderValue)>>,
}

/// A member that only one kind of problem has.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "snake_case")]
enum Extension {
    Limit(u64),
    Reason(&'static str),
    Detected(&'static str),
    /// draft-ietf-httpapi-ratelimit-headers
    #[serde(rename = "violated-policies")]
    ViolatedPolicies([&'static str; 1]),
}

/// An error (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    #[schema(format = "uri")]
    r#type: String,
    title: &'a str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    detail: Option<&'a str>,
    instance: &'a str,
    #[schema(schema_with = document::code)]
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<ErrorItem<'a>>,
    #[serde(flatten)]
    #[schema(ignore)]
    extension: Option<&'a Extension>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FieldError)]
struct ErrorItem<'a> {
    field: &'a str,
    code: &'a str,
    detail: &'a str,
}

impl Problem {
    pub(super) fn of(code: Code) -> Self {
        Self { code, detail: None, errors: Vec::new(), extension: None, header: None }
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }

    pub(super) fn status(&self) -> StatusCode {
        self.code.row().status
    }

    pub(super) fn with_detail(self, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// A single wrong field or parameter.
    pub(super) fn field(code: Code, field: &str, error: &'static str, detail: impl Into<String>) -> Self {
        let errors = vec![FieldError { field: field.to_owned(), code: error, detail: detail.into() }];
        Self { errors, ..Self::of(code) }
    }

    pub(super) fn payload_too_large(limit: u64) -> Self {
        Self { extension: Some(Extension::Limit(limit)), ..Self::of(Code::PayloadTooLarge) }
            .with_detail(format!("at most {limit} bytes are taken"))
    }

    /// Without a key, or with one that is good for nothing (RFC 6750, section 3).
    pub(super) fn unauthenticated(key_was_given: bool) -> Self {
        let (challenge, detail) = if key_was_given {
            ("Bearer realm=\"darkroom\", error=\"invalid_token\"", InvalidKey.to_string())
        } else {
            ("Bearer realm=\"darkroom\"", "the request has no API key".to_owned())
        };
        let header = Some(Box::new((WWW_AUTHENTICATE, HeaderValue::from_static(challenge))));
        Self { header, ..Self::of(Code::Unauthenticated) }.with_detail(detail)
    }

    pub(super) fn uri_too_long(limit: usize) -> Self {
        Self { extension: Some(Extension::Limit(limit as u64)), ..Self::of(Code::UriTooLong) }
    }

    pub(super) fn header_too_large(limit: usize) -> Self {
        Self { extension: Some(Extension::Limit(limit as u64)), ..Self::of(Code::HeaderTooLarge) }
    }

    pub(super) fn method_not_allowed(allowed: HeaderValue) -> Self {
        Self { header: Some(Box::new((ALLOW, allowed))), ..Self::of(Code::MethodNotAllowed) }
    }

    pub(super) fn range_not_satisfiable(bytes: u64) -> Self {
        let header = HeaderValue::try_from(format!("bytes */{bytes}")).ok();
        Self {
            header: header.map(|value| Box::new((CONTENT_RANGE, value))),
            ..Self::of(Code::RangeNotSatisfiable)
        }
    }

    fn precondition_failed(etag: &str) -> Self {
        let header = HeaderValue::try_from(etag).ok();
        Self { header: header.map(|value| Box::new((ETAG, value))), ..Self::of(Code::PreconditionFailed) }
    }

    /// A URL where nothing goes, and what stands against it.
    fn rejected(code: Code, reason: &'static str) -> Self {
        Self { extension: Some(Extension::Reason(reason)), ..Self::of(code) }
    }

    fn quota_exceeded(exceeded: &Exceeded) -> Self {
        let extension = Some(Extension::ViolatedPolicies([exceeded.policy]));
        let problem = Self { extension, ..Self::of(Code::QuotaExceeded) };
        // In whole seconds, and never too early.
        problem.with_detail(exceeded.to_string()).retry_after(exceeded.retry_after + ALMOST_A_SECOND)
    }

    fn retry_after(self, wait: Duration) -> Self {
        Self { header: Some(Box::new((RETRY_AFTER, HeaderValue::from(wait.as_secs())))), ..self }
    }

    /// The body, for the request of this path and id; as part of another answer it has no id.
    pub(super) fn document(&self, base_url: &str, instance: &str, request_id: &str) -> Vec<u8> {
        let Row { slug, title, status, .. } = self.code.row();
        let document = Document {
            r#type: format!("{base_url}/problems/{slug}"),
            title,
            status: status.as_u16(),
            detail: self.detail.as_deref(),
            instance,
            code: slug,
            request_id: Some(request_id).filter(|id| !id.is_empty()),
            errors: self
                .errors
                .iter()
                .map(|error| ErrorItem { field: &error.field, code: error.code, detail: &error.detail })
                .collect(),
            extension: self.extension.as_ref(),
        };
        // Strings and numbers only: nothing in it that JSON cannot say.
        serde_json::to_vec(&document).unwrap_or_default()
    }
}

impl From<Problem> for Response {
    fn from(problem: Problem) -> Self {
        let mut response = Self::default();
        *response.status_mut() = problem.code.row().status;
        if let Some((name, value)) = problem.header.as_deref().cloned() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(problem);
        response
    }
}

impl From<ServiceError> for Problem {
    fn from(error: ServiceError) -> Self {
        let detail = error.to_string();
        let when_full = |code| Self::of(code).with_detail(detail.clone()).retry_after(RETRY_WHEN_FULL);
        let code = match &error {
            ServiceError::QueueFull { retry_after, .. } => {
                let wait = retry_after.unwrap_or(RETRY_WHEN_FULL);
                return Self::of(Code::QueueFull).with_detail(detail).retry_after(wait);
            }
            ServiceError::PreconditionFailed { etag } => {
                return Self::precondition_failed(etag).with_detail(detail);
            }
            ServiceError::LinkInvalid => Code::LinkInvalid,
            ServiceError::LinkExpired(_) => Code::LinkExpired,
            ServiceError::TooManyTrials { .. } => return when_full(Code::TooManyTrials),
            ServiceError::TooManyUploads { .. } => return when_full(Code::TooManyUploads),
            ServiceError::Stopping => return when_full(Code::Stopping),
            ServiceError::Paused => {
                return Self::of(Code::Paused).with_detail(detail).retry_after(RETRY_WHEN_PAUSED);
            }
            ServiceError::QuotaExceeded(exceeded) => return Self::quota_exceeded(exceeded),
            ServiceError::StorageFull => return when_full(Code::StorageFull),
            ServiceError::Invalid(errors) => {
                return Self { errors: errors.clone(), ..Self::of(Code::Validation) };
            }
            ServiceError::CallbackRefused(refused) => {
                return Self::rejected(Code::CallbackUrlRejected, refused.reason()).with_detail(detail);
            }
            ServiceError::SourceRefused(refused) => {
                return Self::rejected(Code::SourceUrlRejected, refused.reason()).with_detail(detail);
            }
            ServiceError::CallbackUnresolvable { .. } => {
                return Self::rejected(Code::CallbackUrlRejected, "unresolvable").with_detail(detail);
            }
            ServiceError::PayloadTooLarge { limit } => return Self::payload_too_large(*limit),
            ServiceError::Image(error) => return Self::of_image(error),
            ServiceError::MediaTypeMismatch { detected, .. } => {
                let extension = Some(Extension::Detected(detected));
                return Self { extension, ..Self::of(Code::MediaTypeMismatch) }.with_detail(detail);
            }
            ServiceError::IdempotencyKeyReused => Code::IdempotencyKeyReused,
            ServiceError::IdempotencyKeyInFlight => Code::IdempotencyKeyInFlight,
            ServiceError::NotFound { .. } => Code::NotFound,
            ServiceError::BackupRunning => Code::BackupRunning,
            ServiceError::AlreadyDelivered
            | ServiceError::SecretConfigured
            | ServiceError::Client(_)
            | ServiceError::TooManySecrets(_) => Code::StateConflict,
            ServiceError::Store(error) => return Self::of_store(error),
            // No request waits for a fetch.
            ServiceError::Io(_) | ServiceError::Sealed(_) | ServiceError::Fetch(_) => {
                return Self::internal(&error);
            }
        };
        Self::of(code).with_detail(detail)
    }
}

impl Problem {
    /// What it was is for the log; the client gets the id by which it is found there.
    fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error, "a request failed");
        Self::of(Code::Internal)
    }

    fn of_store(error: &StoreError) -> Self {
        let conflict = |detail: String| Self::of(Code::StateConflict).with_detail(detail);
        match error {
            StoreError::NotFound => Self::of(Code::NotFound).with_detail("it was purged at this moment"),
            StoreError::Transition(error) => conflict(error.to_string()),
            StoreError::Replay(error) => conflict(error.to_string()),
            StoreError::Delivery(error) => {
                let hint = match error.0 {
                    DeliveryState::Sending => "; an attempt is under way, and ends within seconds",
                    _ => "",
                };
                conflict(format!("{error}{hint}"))
            }
            error => Self::internal(error),
        }
    }

    fn of_image(error: &ImagingError) -> Self {
        let problem = match error {
            ImagingError::Unsupported { detected } => {
                Self { extension: detected.map(Extension::Detected), ..Self::of(Code::UnsupportedMediaType) }
            }
            ImagingError::TooLarge { .. } => Self::of(Code::ImageTooLarge),
            ImagingError::Truncated { .. } | ImagingError::Undecodable { .. } => {
                Self::of(Code::ImageUndecodable)
            }
            ImagingError::UnknownWatermark(_)
            | ImagingError::Stopped
            | ImagingError::Panicked
            | ImagingError::Died { .. }
            | ImagingError::Io(_) => {
                tracing::error!(error = error as &dyn std::error::Error, "a picture could not be looked at");
                return Self::of(Code::Internal);
            }
        };
        problem.with_detail(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_in_order_and_holds_errors_only() {
        for (index, row) in CATALOGUE.iter().enumerate() {
            assert_eq!(row.code as usize, index, "{}", row.slug);
            assert!(row.status.as_u16() >= 400);
            assert_eq!(CATALOGUE.iter().filter(|other| other.slug == row.slug).count(), 1);
        }
    }

    #[test]
    fn a_document_names_each_fault() {
        let problem = Problem::field(Code::Validation, "metadata", "not_json", "expected value");
        let document: serde_json::Value =
            serde_json::from_slice(&problem.document("https://img.example", "/v1/jobs", "req_1")).unwrap();
        assert_eq!(document["type"], "https://img.example/problems/validation");
        assert_eq!(document["status"], 422);
        assert_eq!(document["errors"][0]["field"], "metadata");
        let limit = Problem::payload_too_large(7).document("", "/", "r");
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&limit).unwrap()["limit"], 7);
    }
}
