//! Variants that an operator has given a name.

use std::collections::BTreeMap;

use super::{Variant, Watermarks};

/// The configured presets, and what variants can name besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presets {
    /// What each name stands for.
    pub named: BTreeMap<String, Vec<Variant>>,
    /// Whether clients may ask for nothing else but the defaults.
    pub only: bool,
    /// The configured watermarks.
    pub watermarks: Watermarks,
}

impl Presets {
    /// The names, for people.
    #[must_use]
    pub fn names(&self) -> String {
        match self.named.len() {
            0 => "none is configured".to_owned(),
            _ => self.named.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        }
    }
}
