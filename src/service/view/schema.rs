//! What the API's document says of values that answers have as text: which ones there are.
//!
//! The domain does not know that it is documented; its own lists of names are what is documented.

use std::borrow::Cow;

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{Array, ArrayBuilder, Object, ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::attempt::{Fault, Trigger};
use crate::domain::client::{ClientId, Role};
use crate::domain::delivery::{DeliveryState, ErrorClass};
use crate::domain::destination::Standing;
use crate::domain::event::EventKind;
use crate::domain::id::{ApiKeyId, AuditId, DeliveryId, DestinationId, EventId, JobId, ReplayId, SecretId};
use crate::domain::image::{Format, MetadataPolicy};
use crate::domain::job::{JobStatus, Priority};
use crate::domain::replay::ReplayState;

/// One of these texts.
#[must_use]
pub fn one_of<'a>(values: impl IntoIterator<Item = &'a str>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values)).build()
}

/// A text of this form.
#[must_use]
pub fn pattern(pattern: impl Into<String>) -> Object {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build()
}

macro_rules! named {
    ($($type:ty, $name:literal, $about:literal: $schema:expr;)*) => {$(
        impl PartialSchema for $type {
            fn schema() -> RefOr<Schema> {
                let mut schema: Object = $schema;
                schema.description = Some($about.to_owned());
                schema.into()
            }
        }

        impl ToSchema for $type {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed($name)
            }
        }
    )*};
}

macro_rules! ids {
    ($($type:ty, $name:literal;)*) => {
        named! {$($type, $name, "An id: its kind, then a UUIDv7 as 32 hexadecimal digits.":
            pattern(format!("^{}[0-9a-f]{{32}}$", <$type>::PREFIX));)*}
    };
}

ids! {
    JobId, "JobId";
    EventId, "EventId";
    DeliveryId, "DeliveryId";
    ReplayId, "ReplayId";
    SecretId, "SecretId";
    DestinationId, "DestinationId";
    ApiKeyId, "ApiKeyId";
    AuditId, "AuditId";
}

named! {
    ClientId, "ClientName", "The name of a client.": pattern("^[a-z0-9_-]{1,64}$");
    Role, "Role", "What a client may do.": one_of(Role::ALL.map(Role::as_str));
    JobStatus, "JobStatus", "How far a job is.": one_of(JobStatus::ALL.map(JobStatus::as_str));
    Priority, "Priority", "Among the client's own jobs.": one_of(Priority::ALL.map(Priority::as_str));
    EventKind, "EventType", "What happened.": one_of(EventKind::ALL.map(EventKind::as_str));
    DeliveryState, "DeliveryState", "Whether it arrived.": one_of(DeliveryState::ALL.map(DeliveryState::as_str));
    ErrorClass, "ErrorClass", "What kind of failure an attempt met.": one_of(ErrorClass::ALL.map(ErrorClass::as_str));
    Fault, "Fault", "Who has to do something about it.": one_of(Fault::ALL.map(Fault::as_str));
    Trigger, "Trigger", "Why an attempt was made.": one_of(Trigger::ALL.map(Trigger::as_str));
    Standing, "DestinationState", "How a destination stands.": one_of(Standing::ALL.map(Standing::as_str));
    ReplayState, "ReplayState", "How far a replay is.": one_of(ReplayState::ALL.map(ReplayState::as_str));
    MetadataPolicy, "MetadataPolicy", "What artifacts keep of their picture's metadata.":
        one_of(MetadataPolicy::ALL.map(MetadataPolicy::as_str));
    CallbackEvent, "CallbackEvent", "An event that a callback can ask for.":
        one_of(EventKind::OF_JOBS.map(EventKind::short_name));
}

/// An event by its short name, as `callback_events` has it.
#[derive(Debug)]
pub struct CallbackEvent;

/// SHA-256 as 64 hexadecimal digits.
pub(crate) fn sha256() -> Object {
    pattern("^[0-9a-f]{64}$")
}

/// A media type of a picture.
pub(crate) fn picture_type() -> Object {
    one_of([Format::Jpeg, Format::Png, Format::WebP, Format::Gif, Format::Avif].map(Format::media_type))
}

pub(super) fn colour() -> Object {
    pattern("^#[0-9a-f]{6}$")
}

/// A delivery's state, or `none` where there will be none.
pub(super) fn callback_status() -> Object {
    one_of(DeliveryState::ALL.map(DeliveryState::as_str).into_iter().chain(["none"]))
}

pub(super) fn replay_result() -> Object {
    let others = ["skipped", "gone", "taken_over"];
    one_of(DeliveryState::ALL.map(DeliveryState::as_str).into_iter().chain(others))
}

pub(super) fn channel() -> Object {
    one_of(["webhook"])
}

pub(super) fn spec_version() -> Object {
    one_of(["1.0"])
}

/// Names and values. A tuple is no type that generators of clients know.
pub(super) fn header_pairs() -> Array {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let pair = ArrayBuilder::new().items(text).min_items(Some(2)).max_items(Some(2));
    ArrayBuilder::new().items(pair).build()
}
