//! What a job is to make of its picture, and how it is to treat it.

use super::Fields;
use crate::domain::image::{Handling, Members, MetadataPolicy, Presets, Variant, Watermarks, variants};
use crate::imaging::Probe;
use crate::service::error::{FieldError, ServiceError};

/// The checked fields.
pub(super) struct Wanted {
    pub(super) variants: Vec<Variant>,
    pub(super) preset: Option<String>,
    pub(super) handling: Handling,
}

/// Checks everything about artifacts, and refuses each field that is wrong.
pub(super) fn check(
    fields: &Fields,
    presets: &Presets,
    refuse: &mut impl FnMut(&str, &'static str, &str),
) -> Wanted {
    let handling = Handling {
        metadata: policy(fields.metadata_policy.as_deref(), refuse),
        allow_truncated: flag("allow_truncated", fields.allow_truncated.as_deref(), refuse),
    };
    let preset = fields.preset.clone();
    let variants = match (&preset, &fields.variants) {
        (Some(_), Some(_)) => {
            refuse("variants", "not_with_preset", "give preset or variants, not both");
            None
        }
        (Some(name), None) => {
            let found = presets.named.get(name);
            if found.is_none() {
                refuse("preset", "unknown", &format!("known: {}", presets.names()));
            }
            found.cloned()
        }
        (None, Some(_)) if presets.only => {
            refuse("variants", "presets_only", &format!("name a preset instead: {}", presets.names()));
            None
        }
        (None, Some(text)) => read(text, &presets.watermarks, refuse),
        (None, None) => None,
    };
    Wanted { variants: variants.unwrap_or_else(Variant::defaults), preset, handling }
}

fn read(
    text: &str,
    watermarks: &Watermarks,
    refuse: &mut impl FnMut(&str, &'static str, &str),
) -> Option<Vec<Variant>> {
    let members = match serde_json::from_str::<Vec<Members>>(text) {
        Ok(members) => members,
        Err(error) => {
            let code = if error.is_data() { "not_variants" } else { "not_json" };
            refuse("variants", code, &format!("an array of objects is expected: {error}"));
            return None;
        }
    };
    let faults = match variants(&members, watermarks) {
        Ok(variants) => return Some(variants),
        Err(faults) => faults,
    };
    for fault in faults {
        refuse(&format!("variants{}", fault.path), fault.code, &fault.detail);
    }
    None
}

fn policy(text: Option<&str>, refuse: &mut impl FnMut(&str, &'static str, &str)) -> MetadataPolicy {
    text.map_or(Some(MetadataPolicy::None), MetadataPolicy::parse).unwrap_or_else(|| {
        refuse("metadata_policy", "unknown", &MetadataPolicy::ALL.map(MetadataPolicy::as_str).join(", "));
        MetadataPolicy::None
    })
}

fn flag(field: &str, text: Option<&str>, refuse: &mut impl FnMut(&str, &'static str, &str)) -> bool {
    if text.is_some_and(|text| !matches!(text, "true" | "false")) {
        refuse(field, "not_a_boolean", "true or false");
    }
    text == Some("true")
}

/// Refuses variants that this picture would be too large as.
pub(in crate::service) fn check_sizes(
    variants: &[Variant],
    preset: Option<&str>,
    picture: &Probe,
) -> Result<(), ServiceError> {
    let too_large = |(index, variant): (usize, &Variant)| {
        let error = variant.check_size(picture.width, picture.height).err()?;
        let field = if preset.is_some() { "preset".to_owned() } else { format!("variants[{index}]") };
        Some(FieldError { field, code: "too_large", detail: format!("{}: {error}", variant.name) })
    };
    let errors: Vec<_> = variants.iter().enumerate().filter_map(too_large).collect();
    if errors.is_empty() { Ok(()) } else { Err(ServiceError::Invalid(errors)) }
}

impl Wanted {
    /// Adds to the fingerprint of a request what is not as it is by default: so keys of older requests still hold.
    pub(super) fn fingerprint(&self, add: &mut impl FnMut(&[u8])) {
        if let Some(preset) = &self.preset {
            add(b"preset");
            add(preset.as_bytes());
        } else if self.variants != Variant::defaults() {
            add(b"variants");
            // Numbers and names only: nothing in it that JSON cannot say, and no quotes but its own.
            let all = serde_json::to_string(&self.variants).unwrap_or_default();
            // Older versions did not know of it.
            add(all.replace(r#","watermark":null"#, "").as_bytes());
        }
        let Handling { metadata, allow_truncated } = self.handling;
        if metadata != MetadataPolicy::None {
            add(b"metadata_policy");
            add(metadata.as_str().as_bytes());
        }
        if allow_truncated {
            add(b"allow_truncated");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_before_there_were_watermarks_still_hold() {
        let parts = |watermark: Option<&str>| {
            let watermark = watermark.map(str::to_owned);
            let variant = Variant { name: "a".to_owned(), width: Some(20), watermark, ..Variant::default() };
            let wanted = Wanted { variants: vec![variant], preset: None, handling: Handling::default() };
            let mut parts = Vec::new();
            wanted.fingerprint(&mut |part| parts.push(String::from_utf8(part.to_vec()).unwrap()));
            parts
        };
        let before = r#"[{"name":"a","width":20,"height":null,"fit":"Inside","focus":"Centre","format":null,"quality":null,"background":null,"enlarge":false}]"#;
        assert_eq!(parts(None), ["variants", before]);
        assert_eq!(parts(Some("b")), ["variants", &before.replace("}]", r#","watermark":"b"}]"#)]);
    }
}
