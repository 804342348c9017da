//! Reading variants as clients and configurations write them: strictly, and with every fault named.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::{Colour, Fit, Focus, Format, MAX_SIDE, NotAColour, UNITS, Variant, Watermarks};

/// The most variants of one picture.
pub const MAX_VARIANTS: usize = 16;
const MAX_NAME_BYTES: usize = 40;
const QUALITIES: RangeInclusive<u64> = 1..=100;

const NAME_RULE: &str = "1 to 40 small letters, digits, - and _, the first a letter or digit";

const KEYS: [&str; 10] =
    ["name", "width", "height", "fit", "focus", "format", "quality", "background", "enlarge", "watermark"];
const FITS: [(&str, Fit); 3] = [("inside", Fit::Inside), ("cover", Fit::Cover), ("contain", Fit::Contain)];
const FORMATS: [(&str, Option<Format>); 5] = [
    ("auto", None),
    ("jpeg", Some(Format::Jpeg)),
    ("png", Some(Format::Png)),
    ("webp", Some(Format::WebP)),
    ("avif", Some(Format::Avif)),
];
/// A job's links are named by its artifacts and by these.
const TAKEN: [&str; 9] =
    ["original", "self", "collection", "events", "deliveries", "cancel", "retry", "delete", "restore"];

/// Something that is wrong with variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Where: `[0].width`.
    pub path: String,
    /// A stable name of what is wrong.
    pub code: &'static str,
    /// What is wrong, for a person.
    pub detail: String,
}

/// The members of an object in their order, those that are given twice too.
#[derive(Debug, Clone)]
pub struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that describes a variant")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

/// Whether this names a variant, a preset or a watermark: in every URL and on every disk the same.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let first = text.bytes().next();
    text.len() <= MAX_NAME_BYTES
        && first.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
}

/// Reads the variants of one picture, which may name these watermarks.
///
/// # Errors
///
/// Everything that is wrong with them, not only the first.
pub fn variants(wanted: &[Members], watermarks: &Watermarks) -> Result<Vec<Variant>, Vec<Fault>> {
    let mut faults = Vec::new();
    if wanted.is_empty() || wanted.len() > MAX_VARIANTS {
        let (code, detail) = if wanted.is_empty() {
            ("empty", "name at least one variant".to_owned())
        } else {
            ("too_many", format!("at most {MAX_VARIANTS} variants"))
        };
        return Err(vec![Fault { path: String::new(), code, detail }]);
    }
    let mut variants: Vec<Variant> = Vec::new();
    for (index, members) in wanted.iter().enumerate() {
        let mut reader = Reader { members: &members.0, index, watermarks, faults: &mut faults };
        let variant = reader.variant();
        if !variant.name.is_empty() && variants.iter().any(|other| other.name == variant.name) {
            reader.refuse("name", "repeated", format!("another variant is named {}", variant.name));
        }
        variants.push(variant);
    }
    if faults.is_empty() { Ok(variants) } else { Err(faults) }
}

struct Reader<'a, 'b> {
    members: &'a [(String, Value)],
    index: usize,
    watermarks: &'a Watermarks,
    faults: &'b mut Vec<Fault>,
}

impl<'a> Reader<'a, '_> {
    fn refuse(&mut self, key: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(Fault { path: format!("[{}].{key}", self.index), code, detail: detail.into() });
    }

    fn variant(&mut self) -> Variant {
        self.check_keys();
        let side = 1..=MAX_SIDE.into();
        let variant = Variant {
            name: self.name(),
            width: self.number("width", side.clone()).and_then(|n| n.try_into().ok()),
            height: self.number("height", side).and_then(|n| n.try_into().ok()),
            fit: self.choice("fit", &FITS).unwrap_or_default(),
            focus: self.focus(),
            format: self.choice("format", &FORMATS).flatten(),
            quality: self.number("quality", QUALITIES).and_then(|n| n.try_into().ok()),
            background: self.background(),
            enlarge: self.enlarge(),
            watermark: self.watermark(),
        };
        self.check_combination(&variant);
        variant
    }

    /// What a key has; `null` is as if it were not there.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let member = self.members.iter().find(|(name, _)| name == key);
        member.map(|(_, value)| value).filter(|value| !value.is_null())
    }

    fn check_keys(&mut self) {
        for (at, (key, _)) in self.members.iter().enumerate() {
            let shown: String = key.chars().take(MAX_NAME_BYTES).collect();
            if !KEYS.contains(&key.as_str()) {
                self.refuse(&shown, "unknown", format!("known: {}", KEYS.join(", ")));
            } else if self.members.iter().take(at).any(|(earlier, _)| earlier == key) {
                self.refuse(&shown, "repeated", "given more than once");
            }
        }
    }

    fn name(&mut self) -> String {
        match self.get("name") {
            None => self.refuse("name", "required", "each variant has a name"),
            Some(Value::String(name)) if TAKEN.contains(&name.as_str()) => {
                self.refuse("name", "reserved", format!("a job has a link {name} already"));
            }
            Some(Value::String(name)) if is_name(name) => return name.clone(),
            Some(_) => self.refuse("name", "invalid_name", NAME_RULE),
        }
        String::new()
    }

    fn number(&mut self, key: &str, bounds: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let number = value.as_u64().filter(|number| bounds.contains(number));
        if number.is_none() {
            let detail = format!("a whole number from {} to {}", bounds.start(), bounds.end());
            self.refuse(key, "out_of_range", detail);
        }
        number
    }

    fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.refuse(key, "unknown", format!("one of {}", names.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    fn focus(&mut self) -> Focus {
        let Some(value) = self.get("focus") else { return Focus::Centre };
        let coordinate = |key| {
            let part = value.get(key)?.as_f64().filter(|part| (0.0..=1.0).contains(part))?;
            // From 0 to 10 000, so that nothing is lost but what comes after the fourth digit.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
            Some((part * f64::from(UNITS)).round() as u16)
        };
        match value {
            Value::String(text) if text == "entropy" => return Focus::Entropy,
            Value::Object(members) if members.len() == 2 => {
                if let (Some(x), Some(y)) = (coordinate("x"), coordinate("y")) {
                    return Focus::Point { x, y };
                }
            }
            _ => {}
        }
        self.refuse("focus", "invalid_focus", r#""entropy", or {"x": …, "y": …} with parts from 0 to 1"#);
        Focus::Centre
    }

    fn background(&mut self) -> Option<Colour> {
        let colour = self.get("background")?.as_str().ok_or(NotAColour).and_then(str::parse);
        colour.map_err(|error| self.refuse("background", "not_a_colour", error.to_string())).ok()
    }

    fn enlarge(&mut self) -> bool {
        let value = self.get("enlarge");
        if value.is_some_and(|value| !value.is_boolean()) {
            self.refuse("enlarge", "not_a_boolean", "true or false");
        }
        value.and_then(Value::as_bool).unwrap_or(false)
    }

    fn watermark(&mut self) -> Option<String> {
        let value = self.get("watermark")?;
        let name = value.as_str().filter(|name| self.watermarks.contains_key(*name));
        if name.is_none() {
            let known: Vec<_> = self.watermarks.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none is configured".to_owned() } else { known.join(", ") };
            self.refuse("watermark", "unknown", format!("known: {known}"));
        }
        name.map(str::to_owned)
    }

    /// What each key allows and all of them together do not.
    fn check_combination(&mut self, variant: &Variant) {
        if variant.fit != Fit::Inside {
            for key in ["width", "height"] {
                if self.get(key).is_none() {
                    self.refuse(key, "required", "cover and contain need both width and height");
                }
            }
        }
        if variant.focus != Focus::Centre && variant.fit != Fit::Cover {
            self.refuse("focus", "not_applicable", "it says where cover cuts; nothing else does");
        }
        if variant.quality.is_some() && variant.format == Some(Format::Png) {
            self.refuse("quality", "not_applicable", "PNG keeps every pixel as it is");
        }
        if let Some(format) = variant.format.filter(|format| !format.is_built_in()) {
            let name = format.extension();
            let detail = format!("this darkroom was built without its feature {name}");
            self.refuse("format", "not_supported", detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<Variant>, Vec<Fault>> {
        variants(&serde_json::from_str::<Vec<Members>>(json).unwrap(), &Watermarks::default())
    }

    fn faults(json: &str) -> Vec<(String, &'static str)> {
        read(json).unwrap_err().into_iter().map(|fault| (fault.path, fault.code)).collect()
    }

    #[test]
    fn the_defaults_can_be_written_out() {
        let json =
            r#"[{"name":"optimized"},{"name":"preview","width":800},{"name":"thumbnail","width":200}]"#;
        assert_eq!(read(json), Ok(Variant::defaults()));
    }

    #[test]
    fn every_key_is_read() {
        let json = r##"[{"name":"a-1","width":10,"height":20,"fit":"cover","focus":{"x":0.25,"y":1},
            "format":"jpeg","quality":70,"background":"#102030","enlarge":true}]"##;
        let expected = Variant {
            name: "a-1".to_owned(),
            width: Some(10),
            height: Some(20),
            fit: Fit::Cover,
            focus: Focus::Point { x: 2500, y: 10_000 },
            format: Some(Format::Jpeg),
            quality: Some(70),
            background: Some(Colour([16, 32, 48])),
            enlarge: true,
            watermark: None,
        };
        assert_eq!(read(json), Ok(vec![expected]));
        let plain = read(r#"[{"name":"a","fit":"inside","format":"auto","quality":null}]"#);
        assert_eq!(plain, Ok(vec![Variant { name: "a".to_owned(), ..Variant::default() }]));
    }

    #[test]
    fn every_fault_is_named() {
        let json = r##"[
            {"name":"a","width":0,"heigth":5,"quality":101},
            {"name":"a","height":16385,"fit":"fill","background":"red","enlarge":1},
            {"fit":"cover","width":10,"focus":"faces"},
            {"name":"../b","focus":"entropy"},
            {"name":"original","format":"gif","width":1.5,"width":2},
            {"name":"self","format":"png","quality":80},
            {"name":"b","watermark":"logo"},
            {"name":"c","watermark":1}
        ]"##;
        let expected = [
            ("[0].heigth", "unknown"),
            ("[0].width", "out_of_range"),
            ("[0].quality", "out_of_range"),
            ("[1].height", "out_of_range"),
            ("[1].fit", "unknown"),
            ("[1].background", "not_a_colour"),
            ("[1].enlarge", "not_a_boolean"),
            ("[1].name", "repeated"),
            ("[2].name", "required"),
            ("[2].focus", "invalid_focus"),
            ("[2].height", "required"),
            ("[3].name", "invalid_name"),
            ("[3].focus", "not_applicable"),
            ("[4].width", "repeated"),
            ("[4].name", "reserved"),
            ("[4].width", "out_of_range"),
            ("[4].format", "unknown"),
            ("[5].name", "reserved"),
            ("[5].quality", "not_applicable"),
            ("[6].watermark", "unknown"),
            ("[7].watermark", "unknown"),
        ];
        assert_eq!(faults(json), expected.map(|(path, code)| (path.to_owned(), code)));
    }

    #[test]
    fn a_format_that_is_not_built_in_is_told_so() {
        for format in [Format::WebP, Format::Avif] {
            let name = format.extension();
            let read = read(&format!(r#"[{{"name":"a","format":"{name}"}}]"#));
            match read {
                Ok(variants) => assert!(format.is_built_in() && variants[0].format == Some(format)),
                Err(faults) => {
                    assert_eq!((faults[0].path.as_str(), faults[0].code), ("[0].format", "not_supported"));
                    assert!(!format.is_built_in() && faults[0].detail.contains(name), "{faults:?}");
                }
            }
        }
    }

    #[test]
    fn there_are_some_and_not_too_many() {
        let many = |count: usize| {
            let each: Vec<_> = (0..count).map(|n| format!(r#"{{"name":"v{n}"}}"#)).collect();
            format!("[{}]", each.join(","))
        };
        assert_eq!(faults("[]"), [(String::new(), "empty")]);
        assert_eq!(read(&many(16)).unwrap().len(), 16);
        assert_eq!(faults(&many(17)), [(String::new(), "too_many")]);
    }

    #[test]
    fn names_are_the_same_everywhere() {
        for right in ["a", "0", "hero-2x", "a_b", &"a".repeat(40)] {
            assert!(is_name(right), "{right}");
        }
        for wrong in ["", "A", "-a", "_a", ".", "a.b", "a/b", "a b", "ä", &"a".repeat(41)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
