//! What a use-case refuses, typed by what the caller must do. The HTTP status is decided in `http/problem.rs`.

use std::io;
use std::time::Duration;

use super::clients::ClientError;
use super::quotas::Exceeded;
use super::vault::VaultError;
use crate::domain::attempt::{ErrorClass, Fault};
use crate::domain::job::JobError;
use crate::domain::rotation::TooManySecrets;
pub use crate::imaging::ImagingError;
use crate::notify::webhook::guard::Refused;
use crate::notify::webhook::sender::FetchError;
pub use crate::store::StoreError;

/// What a source may ask for; a longer `Retry-After` counts as this.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// One thing that is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Which part or field.
    pub field: String,
    /// A stable name of what is wrong.
    pub code: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
}

/// Why a use-case was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// As many jobs wait as may wait.
    #[error("{capacity} {what} are waiting, which is as many as may wait")]
    QueueFull {
        /// For what they wait.
        what: &'static str,
        /// How many may wait.
        capacity: u64,
        /// When there may be room, if that is known.
        retry_after: Option<Duration>,
    },
    /// As many uploads are under way as may be.
    #[error("{limit} uploads are under way, which is as many as may be")]
    TooManyUploads {
        /// How many may be.
        limit: u64,
    },
    /// As many trials of callbacks are under way as may be.
    #[error("{limit} trials of callbacks are under way, which is as many as may be")]
    TooManyTrials {
        /// How many may be.
        limit: usize,
    },
    /// The service is stopping.
    #[error("the service is stopping and takes no new jobs")]
    Stopping,
    /// An operator has paused the intake.
    #[error("an operator has paused the intake of jobs")]
    Paused,
    /// The request's fields are wrong.
    #[error("the request has invalid fields")]
    Invalid(Vec<FieldError>),
    /// The job is at another revision than the client knows.
    #[error("the job was changed since, or If-Match names another")]
    PreconditionFailed {
        /// Its entity tag now.
        etag: String,
    },
    /// What a link is signed with is not ours.
    #[error("the link was changed, or is not one of this service")]
    LinkInvalid,
    /// A signed link leads nowhere any more.
    #[error("{0}")]
    LinkExpired(&'static str),
    /// The callback URL is not one that callbacks may go to.
    #[error("{0}")]
    CallbackRefused(#[from] Refused),
    /// The callback URL's host does not resolve.
    #[error("the host {host} of callback_url does not resolve")]
    CallbackUnresolvable {
        /// The host.
        host: String,
    },
    /// The source URL is not one that pictures may be fetched from.
    #[error("{0}")]
    SourceRefused(Refused),
    /// The picture could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// It arrived, and nobody insisted.
    #[error("the delivery is delivered; force=true sends it again all the same")]
    AlreadyDelivered,
    /// The picture is not one, or too much of one.
    #[error(transparent)]
    Image(#[from] ImagingError),
    /// The media type that the client named is not what the bytes are.
    #[error("the request says {claimed}, and the bytes are {detected}")]
    MediaTypeMismatch {
        /// What the client said.
        claimed: String,
        /// What the bytes are.
        detected: &'static str,
    },
    /// The picture has more bytes than allowed.
    #[error("the picture exceeds {limit} bytes")]
    PayloadTooLarge {
        /// How many are allowed.
        limit: u64,
    },
    /// The idempotency key stood for another payload.
    #[error("this Idempotency-Key was used with another payload")]
    IdempotencyKeyReused,
    /// The request that first used the idempotency key is still being received.
    #[error("a request with this Idempotency-Key is being received at this moment")]
    IdempotencyKeyInFlight,
    /// There is no such thing, or not for this client.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// One backup at a time.
    #[error("another backup is being made")]
    BackupRunning,
    /// The disk is full.
    #[error("there is no room left on the disk")]
    StorageFull,
    /// The configuration has the signing secret.
    #[error("the signing secret is that of the configuration; change callbacks.signing_secret")]
    SecretConfigured,
    /// A client has used what it may.
    #[error(transparent)]
    QuotaExceeded(Exceeded),
    /// A client was not changed.
    #[error(transparent)]
    Client(ClientError),
    /// As many secrets sign as may.
    #[error(transparent)]
    TooManySecrets(#[from] TooManySecrets),
    /// A fault of ours.
    #[error("a sealed secret does not open")]
    Sealed(#[from] VaultError),
    /// A fault of ours.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// A fault of ours.
    #[error("a file could not be read or written")]
    Io(#[source] io::Error),
}

impl ServiceError {
    /// How long the one who failed wants to be left alone, within reason.
    pub(super) fn retry_after(&self) -> Duration {
        match self {
            Self::Fetch(FetchError::Unavailable { retry_after, .. }) => {
                retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER)
            }
            _ => Duration::ZERO,
        }
    }

    /// Whether it lies between here and the source, and so is no fault of the source.
    pub(super) fn is_on_the_way(&self) -> bool {
        matches!(self, Self::Fetch(FetchError::Failed(failure)) if failure.fault != Fault::Receiver)
    }

    /// Whether it is the disk that is full: not a fault, and what was to be done is done when there is room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::StorageFull)
    }
}

impl From<ClientError> for ServiceError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Unknown => Self::NotFound { what: "client" },
            ClientError::UnknownKey => Self::NotFound { what: "key" },
            ClientError::Store(error) => error.into(),
            error => Self::Client(error),
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::StorageFull,
            error => Self::Store(error),
        }
    }
}

impl From<io::Error> for ServiceError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::StorageFull,
            _ => Self::Io(error),
        }
    }
}

/// How a failed try reads in the job. The codes are those of the problem documents.
pub(super) fn job_error(error: &ImagingError) -> JobError {
    let (code, title, retryable) = match error {
        ImagingError::Unsupported { .. } => {
            ("unsupported-media-type", "The picture's format is not supported", false)
        }
        ImagingError::TooLarge { .. } => ("image-too-large", "The picture is too large", false),
        ImagingError::Truncated { .. } | ImagingError::Undecodable { .. } => {
            ("image-undecodable", "The picture cannot be decoded", false)
        }
        ImagingError::UnknownWatermark(_) => {
            ("watermark-unknown", "A watermark is no longer configured", false)
        }
        ImagingError::Died { .. } => ("imaging-died", "The work on the picture broke down", true),
        ImagingError::Stopped | ImagingError::Panicked | ImagingError::Io(_) => {
            ("processing-failed", "The picture could not be processed", true)
        }
    };
    JobError { code: code.to_owned(), title: title.to_owned(), detail: error.to_string(), retryable }
}

/// How a fetch that failed reads in the job.
pub(super) fn fetch_error(error: &FetchError) -> JobError {
    let (code, title, retryable) = match error {
        FetchError::Blocked(_) => {
            ("source-blocked", "The source is not one that pictures may be fetched from", false)
        }
        FetchError::Redirected(_) => ("source-redirected", "The source leads elsewhere", false),
        FetchError::Refused(_) => ("source-refused", "The source does not hand the picture out", false),
        FetchError::Encoded(_) => ("source-encoded", "The source compresses what it sends", false),
        FetchError::TooLarge { .. } => ("source-too-large", "The picture has too many bytes", false),
        FetchError::Unavailable { .. } => ("source-unavailable", "The source was not well", true),
        FetchError::Failed(failure) => match failure.class {
            ErrorClass::Timeout => ("source-timeout", "The source took too long", true),
            ErrorClass::Reset => ("source-interrupted", "The picture broke off on its way", true),
            _ => ("source-unreachable", "The source could not be reached", true),
        },
    };
    JobError { code: code.to_owned(), title: title.to_owned(), detail: error.to_string(), retryable }
}
