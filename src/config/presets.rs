//! Sections `[presets.NAME]`: variants under a name.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Config, ConfigError};
use crate::domain::image::{Fault, Members, Presets, is_name, variants};

/// Section `[presets.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preset {
    /// As a client would write them.
    variants: Vec<Members>,
}

impl Config {
    /// The presets as they are used.
    ///
    /// # Errors
    ///
    /// Names the first preset in which something is wrong, and all that is wrong with it.
    pub fn presets(&self) -> Result<Presets, ConfigError> {
        let mut named = BTreeMap::new();
        let watermarks = self.watermarks_read.clone();
        for (name, preset) in &self.presets {
            let wrong = |problem| ConfigError::Preset { name: name.clone(), problem };
            if !is_name(name) {
                let rule = "a preset's name has 1 to 40 small letters, digits, - and _";
                return Err(wrong(rule.to_owned()));
            }
            let told = |Fault { path, detail, .. }: Fault| format!("variants{path}: {detail}");
            let variants = variants(&preset.variants, &watermarks)
                .map_err(|faults| wrong(faults.into_iter().map(told).collect::<Vec<_>>().join("; ")))?;
            named.insert(name.clone(), variants);
        }
        Ok(Presets { named, only: self.imaging.presets_only, watermarks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::domain::image::Fit;

    fn loaded(toml: &str) -> Result<Presets, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("darkroom.toml");
        std::fs::write(&file, toml).unwrap();
        let config = Config::load(Sources { file: Some(file), ..Sources::default() });
        config.map(|config| config.presets().unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn presets_are_read_as_variants_are() {
        assert_eq!(loaded(""), Ok(Presets::default()));
        let presets = loaded(
            "[imaging]\npresets_only = true\n[presets.avatar]\nvariants = [\n  \
             { name = \"small\", width = 64, height = 64, fit = \"cover\", focus = { x = 0.5, y = 0.25 } },\n  \
             { name = \"large\", width = 512 },\n]\n[presets.hero-2x]\nvariants = [{ name = \"hero\", quality = 60 }]\n",
        )
        .unwrap();
        assert!(presets.only);
        assert_eq!(presets.names(), "avatar, hero-2x");
        assert_eq!(presets.named["avatar"].len(), 2);
        assert_eq!(presets.named["avatar"][0].fit, Fit::Cover);
    }

    #[test]
    fn mistakes_in_a_preset_are_named() {
        let problem = |body: &str| loaded(&format!("[presets.avatar]\n{body}\n")).unwrap_err();
        let text = problem("variants = [{ name = \"a\", width = 0 }, { name = \"a\", fit = \"fill\" }]");
        assert!(text.contains("presets.avatar"), "{text}");
        assert!(text.contains("variants[0].width: a whole number from 1 to 16384"), "{text}");
        assert!(text.contains("variants[1].fit: one of inside, cover, contain"), "{text}");
        assert!(problem("variants = []").contains("name at least one variant"));
        assert!(problem("variant = []").contains("variant"));
        assert!(
            loaded("[presets.\"A b\"]\nvariants = [{ name = \"a\" }]\n")
                .unwrap_err()
                .contains("small letters")
        );
    }
}
