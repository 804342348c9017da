//! Sections `[watermarks.NAME]`: pictures to draw on artifacts.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Read as _};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use image::codecs::png::PngDecoder;
use image::{DynamicImage, ImageDecoder as _, ImageError};
use serde::Deserialize;

use super::ConfigError;
use crate::domain::image::{Placement, Position, UNITS, Watermarks, is_name};

const MAX_BYTES: u64 = 1 << 20;
const MAX_PIXELS: u64 = 1_000_000;
/// Decoding takes two samples of 16 bits for each of 8 at the most, and as much again for what is in the file besides.
const MAX_MEMORY: u64 = 16 * MAX_PIXELS;

/// Section `[watermarks.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Watermark {
    file: PathBuf,
    #[serde(default)]
    position: Position,
    #[serde(default = "default_width")]
    width: f64,
    #[serde(default = "default_margin")]
    margin: f64,
    #[serde(default = "default_opacity")]
    opacity: f64,
}

fn default_width() -> f64 {
    0.2
}

fn default_margin() -> f64 {
    0.02
}

fn default_opacity() -> f64 {
    0.5
}

/// Reads them all; nobody looks at their files again.
pub(super) fn read(sections: &BTreeMap<String, Watermark>) -> Result<Watermarks, ConfigError> {
    sections
        .iter()
        .map(|(name, section)| match section.read(name) {
            Ok(watermark) => Ok((name.clone(), Arc::new(watermark))),
            Err(problem) => Err(ConfigError::Watermark { name: name.clone(), problem }),
        })
        .collect()
}

impl Watermark {
    fn read(&self, name: &str) -> Result<crate::domain::image::Watermark, String> {
        if !is_name(name) {
            return Err("a watermark's name has 1 to 40 small letters, digits, - and _".to_owned());
        }
        let placement = Placement {
            position: self.position,
            width: units("width", self.width, 0.01..=1.0)?,
            margin: units("margin", self.margin, 0.0..=0.5)?,
            opacity: units("opacity", self.opacity, 0.0..=1.0)?,
        };
        let told = |problem: String| format!("file {}: {problem}", self.file.display());
        let bytes = contents(&self.file).map_err(told)?;
        let pixels = decoded(&bytes).map_err(told)?.into_rgba8();
        let size = pixels.dimensions();
        Ok(crate::domain::image::Watermark { size, pixels: pixels.into_raw(), placement })
    }
}

fn units(key: &str, share: f64, bounds: RangeInclusive<f64>) -> Result<u16, String> {
    if !bounds.contains(&share) {
        return Err(format!("{key} must be from {} to {}", bounds.start(), bounds.end()));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    Ok((share * f64::from(UNITS)).round() as u16)
}

fn contents(file: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| error.to_string();
    // One that is a pipe would be waited for.
    if !fs::metadata(file).map_err(told)?.is_file() {
        return Err("it is no file".to_owned());
    }
    let mut bytes = Vec::new();
    File::open(file).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(told)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

fn decoded(bytes: &[u8]) -> Result<DynamicImage, String> {
    let told = |error: ImageError| format!("it is no PNG that can be decoded: {error}");
    let mut limits = image::Limits::no_limits();
    limits.max_alloc = Some(MAX_MEMORY);
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(told)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("it has {width} × {height} pixels, and at most {MAX_PIXELS} are possible"));
    }
    DynamicImage::from_decoder(decoder).map_err(told)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use image::{ImageFormat, Rgba, RgbaImage};

    use super::*;
    use crate::config::{Config, Sources};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            let folder = Self(tempfile::tempdir().unwrap());
            let logo = RgbaImage::from_pixel(3, 2, Rgba([1, 2, 3, 4]));
            logo.save_with_format(folder.path("logo.png"), ImageFormat::Png).unwrap();
            folder
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn load(&self, toml: &str, environment: &[(&str, &str)]) -> Result<Config, String> {
            let file = self.path("darkroom.toml");
            fs::write(&file, toml.replace("FOLDER", &self.0.path().display().to_string())).unwrap();
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            let environment: HashMap<_, _> = environment.iter().map(pair).collect();
            let sources = Sources { file: Some(file), environment, ..Sources::default() };
            Config::load(sources).map_err(|error| error.to_string())
        }

        fn problem(&self, body: &str) -> String {
            self.load(&format!("[watermarks.logo]\n{body}\n"), &[]).unwrap_err()
        }
    }

    #[test]
    fn files_are_read_and_the_rest_has_defaults() {
        let folder = Folder::new();
        let toml = "[watermarks.logo]\nfile = 'FOLDER/logo.png'\n[watermarks.b-2]\nfile = 'FOLDER/logo.png'\n\
                    position = 'north-west'\nwidth = 1\nmargin = 0\nopacity = 0.25\n";
        let config = folder.load(toml, &[("DARKROOM_WATERMARKS__LOGO__OPACITY", "0.75")]).unwrap();
        let watermarks = config.presets().unwrap().watermarks;
        let logo = &watermarks["logo"];
        assert_eq!((logo.size, &logo.pixels[..5]), ((3, 2), &[1, 2, 3, 4, 1][..]));
        let placement = |position, width, margin, opacity| Placement { position, width, margin, opacity };
        assert_eq!(logo.placement, placement(Position::SouthEast, 2_000, 200, 7_500));
        assert_eq!(watermarks["b-2"].placement, placement(Position::NorthWest, UNITS, 0, 2_500));
        assert!(!format!("{config:?}").contains("[1, 2, 3"));
    }

    #[test]
    fn presets_name_watermarks_that_are_there() {
        let folder = Folder::new();
        let preset = "[presets.p]\nvariants = [{ name = 'a', watermark = 'logo' }]\n";
        let both = format!("[watermarks.logo]\nfile = 'FOLDER/logo.png'\n{preset}");
        let presets = folder.load(&both, &[]).unwrap().presets().unwrap();
        assert_eq!(presets.named["p"][0].watermark.as_deref(), Some("logo"));
        let text = folder.load(preset, &[]).unwrap_err();
        assert!(text.contains("presets.p: variants[0].watermark: known: none is configured"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let folder = Folder::new();
        let logo = fs::read(folder.path("logo.png")).unwrap();
        fs::write(folder.path("cut.png"), &logo[..logo.len() - 20]).unwrap();
        fs::write(folder.path("long.png"), [logo, vec![0; 1 << 20]].concat()).unwrap();
        RgbaImage::new(1001, 1000).save(folder.path("large.png")).unwrap();
        RgbaImage::new(1000, 1000).save(folder.path("largest.png")).unwrap();
        DynamicImage::new_rgb8(2, 2).save(folder.path("photo.jpg")).unwrap();
        assert!(folder.load("[watermarks.logo]\nfile = 'FOLDER/largest.png'\n", &[]).is_ok());
        for (body, told) in [
            ("file = 'FOLDER/none.png'", "none.png: No such file"),
            ("file = 'FOLDER'", "it is no file"),
            ("file = 'FOLDER/photo.jpg'", "it is no PNG"),
            ("file = 'FOLDER/cut.png'", "it is no PNG that can be decoded"),
            ("file = 'FOLDER/long.png'", "more than 1048576 bytes"),
            ("file = 'FOLDER/large.png'", "1001 × 1000 pixels"),
            ("file = 'FOLDER/logo.png'\nwidth = 0.009", "width must be from 0.01 to 1"),
            ("file = 'FOLDER/logo.png'\nmargin = 0.6", "margin must be from 0 to 0.5"),
            ("file = 'FOLDER/logo.png'\nopacity = -0.1", "opacity must be from 0 to 1"),
            ("file = 'FOLDER/logo.png'\nopacity = nan", "opacity must be from 0 to 1"),
        ] {
            let text = folder.problem(body);
            assert!(text.contains("watermarks.logo: ") && text.contains(told), "{body}: {text}");
        }
        assert!(folder.problem("position = 'east'").contains("file"));
        assert!(folder.problem("file = 'FOLDER/logo.png'\nposition = 'up'").contains("up"));
        assert!(folder.problem("file = 'FOLDER/logo.png'\nrotate = 3").contains("rotate"));
        let name = folder.load("[watermarks.'A b']\nfile = 'FOLDER/logo.png'\n", &[]).unwrap_err();
        assert!(name.contains("small letters"), "{name}");
    }
}
