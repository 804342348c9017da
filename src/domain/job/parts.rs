//! What a job is made of.

use jiff::Timestamp;
use jiff::fmt::serde::timestamp::millisecond;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::domain::delivery::DeliveryState;
use crate::domain::event::EventKind;
use crate::domain::hex::hash;
use crate::domain::id::DeliveryId;
use crate::domain::image::Format;
use crate::domain::retry::RetryOverride;
use crate::domain::secret::SealedSecret;

/// Which of a client's own jobs go first; no client gets ahead of another by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub enum Priority {
    /// Before the others.
    High,
    /// The default.
    #[default]
    Normal,
    /// After the others.
    Low,
}

impl Priority {
    /// All of them, the first to go first.
    pub const ALL: [Self; 3] = [Self::High, Self::Normal, Self::Low];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::High => "high",
            Self::Normal => "normal",
            Self::Low => "low",
        }
    }

    /// Reads the name in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.as_str() == name)
    }
}

/// The picture as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The name the client gave it; never used as a path.
    pub filename: Option<String>,
    /// Sniffed from the bytes.
    pub format: Format,
    /// Size in bytes.
    pub bytes: u64,
    /// Pixels, as displayed.
    pub width: u32,
    /// Pixels, as displayed.
    pub height: u32,
    /// SHA-256 (FIPS 180-4) of the bytes.
    #[serde(with = "hash")]
    pub sha256: [u8; 32],
}

impl Input {
    /// The longest name that is kept.
    pub const MAX_FILENAME_CHARS: usize = 255;
}

/// Where a picture is fetched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What is shown: without the query, which is the secret of a signed URL.
    pub url: Url,
    /// The whole URL, for as long as it is needed.
    pub sealed: Option<SealedSecret>,
}

impl Source {
    /// A source that is shown without what may be secret of its URL.
    #[must_use]
    pub fn new(url: &Url, sealed: SealedSecret) -> Self {
        let mut shown = url.clone();
        shown.set_query(None);
        shown.set_fragment(None);
        Self { url: shown, sealed: Some(sealed) }
    }

    /// What the picture is called there: the last part of the path.
    #[must_use]
    pub fn filename(&self) -> Option<String> {
        let last = self.url.path_segments()?.next_back()?;
        let name = percent_decode_str(last).decode_utf8().ok()?;
        let name: String = name.chars().filter(|c| !c.is_control()).take(Input::MAX_FILENAME_CHARS).collect();
        Some(name).filter(|name| !name.is_empty())
    }
}

/// Where the picture of a new job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// It came with the request.
    Here(Input),
    /// It is to be fetched.
    Elsewhere(Source),
}

impl From<Input> for Origin {
    fn from(input: Input) -> Self {
        Self::Here(input)
    }
}

impl From<Source> for Origin {
    fn from(source: Source) -> Self {
        Self::Elsewhere(source)
    }
}

/// A stored picture that the job made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The variant's name, unique within the job.
    pub name: String,
    /// The format it was encoded in.
    pub format: Format,
    /// Size in bytes.
    pub bytes: u64,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// SHA-256 (FIPS 180-4) of the bytes.
    #[serde(with = "hash")]
    pub sha256: [u8; 32],
}

/// Who is told, of what, and whether that has worked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Where the event is posted.
    pub url: Url,
    /// Which kinds of events.
    pub events: Vec<EventKind>,
    /// Signs instead of the client's secret.
    pub secret: Option<SealedSecret>,
    /// Sent with each attempt, besides our own. Their values may be credentials.
    #[serde(default)]
    pub headers: Vec<(String, SealedSecret)>,
    /// What it has of its own instead of the configured schedule.
    #[serde(default)]
    pub retry: RetryOverride,
    /// How the latest of its deliveries stands; `None` before there is one.
    pub latest: Option<CallbackProgress>,
}

/// How the latest delivery of a job's callback stands. What a job keeps of it is how it was when it came to be; who
/// reads the job is shown how it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallbackProgress {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// The delivery's state.
    pub state: DeliveryState,
    /// Attempts made so far.
    pub attempts: u32,
    /// When the next one is due.
    #[serde(with = "millisecond::optional")]
    pub next_attempt_at: Option<Timestamp>,
    /// When the receiver took it.
    #[serde(with = "millisecond::optional")]
    pub delivered_at: Option<Timestamp>,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// A stable name, the slug of a problem type.
    pub code: String,
    /// What it means.
    pub title: String,
    /// What happened here.
    pub detail: String,
    /// Whether the same picture may succeed another time.
    pub retryable: bool,
}

impl JobError {
    /// The job did not end within the time its client gave it.
    #[must_use]
    pub fn deadline_exceeded(deadline_ms: u64) -> Self {
        Self {
            code: "deadline-exceeded".to_owned(),
            title: "The deadline has passed".to_owned(),
            detail: format!("it was not done within the {deadline_ms} ms that deadline_ms allows"),
            retryable: true,
        }
    }
}
