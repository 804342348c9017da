//! One wanted artifact, and which size it has.

use serde::{Deserialize, Serialize};

use super::{Colour, Format};

/// The longest side that a variant can be asked for, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// The most pixels of a variant that has more of them than its picture. What is smaller costs less than the picture
/// itself did, but a picture of one pixel could be made any size. An AVIF, whose encoder needs many times the memory of
/// its picture, never has more.
const MAX_ADDED_PIXELS: u64 = 1 << 24;

/// One wanted artifact.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The artifact's name, part of its URL.
    pub name: String,
    /// The width in pixels that is aimed at. Without width and height the picture keeps its size.
    pub width: Option<u32>,
    /// The height in pixels that is aimed at.
    #[serde(default)]
    pub height: Option<u32>,
    /// How the picture gets into width and height.
    #[serde(default)]
    pub fit: Fit,
    /// Which part stays where [`Fit::Cover`] cuts something off.
    #[serde(default)]
    pub focus: Focus,
    /// The format; without one it follows from the picture.
    #[serde(default)]
    pub format: Option<Format>,
    /// How good a lossy format is to look, from 1 to 100.
    #[serde(default)]
    pub quality: Option<u8>,
    /// What lies behind the picture.
    #[serde(default)]
    pub background: Option<Colour>,
    /// Whether a picture that is smaller is made larger.
    #[serde(default)]
    pub enlarge: bool,
    /// The name of what is drawn on it.
    #[serde(default)]
    pub watermark: Option<String>,
}

/// How a picture gets into a width and a height.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fit {
    /// All of it, as large as fits.
    #[default]
    Inside,
    /// It fills them, and what stands over is cut off.
    Cover,
    /// All of it, and what it leaves free is filled.
    Contain,
}

/// What is to be seen of a picture that is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Focus {
    /// The middle.
    #[default]
    Centre,
    /// As much as there can be on both sides of this point.
    Point {
        /// From the left, in ten-thousandths of the width.
        x: u16,
        /// From the top, in ten-thousandths of the height.
        y: u16,
    },
    /// Where most happens, by the entropy of its brightness.
    Entropy,
}

/// Which size a variant of a picture has, and what of the picture is in it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Geometry {
    /// The size of the artifact.
    pub size: (u32, u32),
    /// The size that the picture, or what is left of it, is scaled to; less than `size` where that is filled.
    pub scaled: (u32, u32),
    /// The size of the part of the picture that is left, in its pixels, where something is cut off.
    pub crop: Option<(f64, f64)>,
}

/// A variant of this picture would have too many pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it would be {width} × {height} pixels; {limit}")]
pub struct TooLarge {
    width: u32,
    height: u32,
    limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Limit {
    #[error("at most {0} a side are possible")]
    Side(u32),
    #[error(
        "at most {MAX_ADDED_PIXELS} in all are possible for an AVIF, and for what is larger than its picture"
    )]
    Pixels,
}

impl Variant {
    /// What every job makes unless it asks for something else: `optimized` at full size, `preview` 800 px and
    /// `thumbnail` 200 px wide.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        [("optimized", None), ("preview", Some(800)), ("thumbnail", Some(200))]
            .map(|(name, width)| Self { name: name.to_owned(), width, ..Self::default() })
            .to_vec()
    }

    /// Whether this is the picture of that format itself in fewer bytes.
    #[must_use]
    pub fn is_optimized(&self, picture: Format) -> bool {
        self.width.is_none()
            && self.height.is_none()
            && self.background.is_none()
            && self.watermark.is_none()
            && self.format.is_none_or(|format| format == picture)
    }

    /// The size of this variant of a picture of `width` × `height` pixels (as displayed).
    ///
    /// Of the picture's two sides the one that decides the scale gets exactly the length that was asked for. The
    /// other follows the aspect ratio and is rounded half up, at least 1: 3840 × 2160 at a width of 200 is
    /// 200 × 113 (112.5 rounded up). Unless `enlarge` is set, no scale is larger than 1.
    ///
    /// `Contain` is exactly as large as asked for. So is `Cover`, but where the picture is too small for that, the
    /// size that was asked for is scaled down by the same rule until the picture covers it.
    #[must_use]
    pub fn geometry(&self, width: u32, height: u32) -> Geometry {
        let whole = |size| Geometry { size, scaled: size, crop: None };
        match (self.fit, self.width, self.height) {
            (Fit::Cover, Some(w), Some(h)) => self.cover((width, height), (w, h)),
            (Fit::Contain, Some(w), Some(h)) => {
                Geometry { size: (w, h), ..whole(self.inside((width, height), (Some(w), Some(h)))) }
            }
            (_, w, h) => whole(self.inside((width, height), (w, h))),
        }
    }

    fn inside(&self, (width, height): (u32, u32), limits: (Option<u32>, Option<u32>)) -> (u32, u32) {
        let by_width = |w| (w, share(height, w, width));
        let by_height = |h| (share(width, h, height), h);
        let scaled = match limits {
            (Some(w), Some(h)) if is_wider((width, height), (w, h)) => by_width(w),
            (_, Some(h)) => by_height(h),
            (Some(w), None) => by_width(w),
            (None, None) => (width, height),
        };
        // Scaled up, neither side is shorter than before.
        let grows = scaled.0 > width || scaled.1 > height;
        if grows && !self.enlarge { (width, height) } else { scaled }
    }

    fn cover(&self, (width, height): (u32, u32), (w, h): (u32, u32)) -> Geometry {
        let is_covered = w <= width && h <= height;
        let size = if is_covered || self.enlarge {
            (w, h)
        } else if is_wider((width, height), (w, h)) {
            (share(w, height, h), height)
        } else {
            (width, share(h, width, w))
        };
        let [picture_w, picture_h, w, h] = [width, height, size.0, size.1].map(f64::from);
        let crop = if is_wider((width, height), size) {
            (picture_h * w / h, picture_h)
        } else {
            (picture_w, picture_w * h / w)
        };
        Geometry { size, scaled: size, crop: Some(crop) }
    }

    /// Refuses what a picture of this size would be too large as.
    ///
    /// # Errors
    ///
    /// When a side is longer than the format, or than anything but the picture itself, may have, or when there are
    /// many more pixels than the picture has.
    pub fn check_size(&self, width: u32, height: u32) -> Result<(), TooLarge> {
        let (w, h) = self.geometry(width, height).size;
        let pixels = |w, h| u64::from(w) * u64::from(h);
        let of_format = self.format.map_or(u32::MAX, Format::max_side);
        let side = of_format.min(MAX_SIDE.max(width).max(height));
        let of_picture = if self.format == Some(Format::Avif) { 0 } else { pixels(width, height) };
        let limit = if w.max(h) > side {
            Limit::Side(side)
        } else if pixels(w, h) > MAX_ADDED_PIXELS.max(of_picture) {
            Limit::Pixels
        } else {
            return Ok(());
        };
        Err(TooLarge { width: w, height: h, limit })
    }
}

/// Whether the first is wider than the second at the same height, or as wide.
fn is_wider((w, h): (u32, u32), (other_w, other_h): (u32, u32)) -> bool {
    u64::from(w) * u64::from(other_h) >= u64::from(other_w) * u64::from(h)
}

/// `side · part / whole`, rounded half up, at least 1.
pub(super) fn share(side: u32, part: u32, whole: u32) -> u32 {
    let [side, part, whole] = [side, part, whole].map(u128::from);
    // floor(side · part / whole + 1/2) in whole numbers
    let share = (2 * side * part + whole) / (2 * whole).max(1);
    u32::try_from(share).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(width: impl Into<Option<u32>>, height: impl Into<Option<u32>>) -> Variant {
        Variant { name: "v".to_owned(), width: width.into(), height: height.into(), ..Variant::default() }
    }

    fn size(variant: &Variant, width: u32, height: u32) -> (u32, u32) {
        variant.geometry(width, height).size
    }

    #[test]
    fn sizes_round_half_up_and_never_grow() {
        assert_eq!(size(&variant(200, None), 3840, 2160), (200, 113));
        assert_eq!(size(&variant(800, None), 4032, 3024), (800, 600));
        assert_eq!(size(&variant(800, None), 640, 480), (640, 480));
        assert_eq!(size(&variant(200, None), 200, 100), (200, 100));
        assert_eq!(size(&variant(200, None), 16_000, 1), (200, 1));
        assert_eq!(size(&variant(1, None), 2, u32::MAX), (1, 2_147_483_648));
        assert_eq!(size(&variant(None, None), 6028, 3391), (6028, 3391));
        assert_eq!(size(&variant(None, 200), 2160, 3840), (113, 200));
    }

    #[test]
    fn the_side_that_decides_is_exact() {
        assert_eq!(size(&variant(200, 200), 3840, 2160), (200, 113));
        assert_eq!(size(&variant(200, 200), 2160, 3840), (113, 200));
        assert_eq!(size(&variant(200, 113), 3840, 2160), (200, 113));
        assert_eq!(size(&variant(200, 112), 3840, 2160), (199, 112));
        assert_eq!(size(&variant(4000, 10), 300, 200), (15, 10));
        assert_eq!(size(&variant(400, 400), 300, 200), (300, 200));
        let larger = Variant { enlarge: true, ..variant(400, 400) };
        assert_eq!(size(&larger, 300, 200), (400, 267));
        assert_eq!(size(&Variant { enlarge: true, ..variant(400, None) }, 3, 2), (400, 267));
    }

    #[test]
    fn what_covers_is_cut_and_shrinks_with_its_picture() {
        let cover = |w, h| Variant { fit: Fit::Cover, ..variant(w, h) };
        let of = |variant: Variant, w, h| {
            let Geometry { size, scaled, crop } = variant.geometry(w, h);
            assert_eq!(scaled, size);
            (size, crop.unwrap())
        };
        assert_eq!(of(cover(100, 100), 400, 200), ((100, 100), (200.0, 200.0)));
        assert_eq!(of(cover(100, 50), 400, 400), ((100, 50), (400.0, 200.0)));
        // Half of what was asked for is what there is.
        assert_eq!(of(cover(200, 100), 400, 50), ((100, 50), (100.0, 50.0)));
        assert_eq!(of(cover(800, 800), 400, 300), ((300, 300), (300.0, 300.0)));
        assert_eq!(of(cover(300, 200), 100, 100), ((100, 67), (100.0, 67.0)));
        let larger = Variant { enlarge: true, ..cover(800, 400) };
        assert_eq!(of(larger, 400, 400), ((800, 400), (400.0, 200.0)));
    }

    #[test]
    fn what_contains_is_as_large_as_asked_for() {
        let contain = |enlarge| Variant { fit: Fit::Contain, enlarge, ..variant(100, 100) };
        assert_eq!(
            contain(false).geometry(400, 200),
            Geometry { size: (100, 100), scaled: (100, 50), crop: None }
        );
        assert_eq!(contain(false).geometry(40, 20).scaled, (40, 20));
        assert_eq!(contain(true).geometry(40, 20).scaled, (100, 50));
    }

    #[test]
    fn nothing_grows_beyond_measure() {
        let told = |variant: Variant, w, h| variant.check_size(w, h).map_err(|error| error.to_string());
        let larger = |w| Variant { enlarge: true, ..variant(w, None) };
        assert_eq!(told(larger(4096), 10, 10), Ok(()));
        assert!(
            told(larger(4097), 10, 10).unwrap_err().contains("4097 × 4097 pixels; at most 16777216 in all")
        );
        assert!(told(larger(16_384), 1, 16_384).unwrap_err().contains("16384 a side"));
        // Smaller than its picture
        assert_eq!(told(variant(8000, None), 8100, 8100), Ok(()));
        let contain = Variant { fit: Fit::Contain, ..variant(8000, 8000) };
        assert!(told(contain, 10, 10).is_err());
        let avif = Variant { format: Some(Format::Avif), ..variant(8000, None) };
        assert!(told(avif, 8100, 8100).is_err());
        let webp = |w| Variant { format: Some(Format::WebP), ..variant(w, None) };
        assert!(told(webp(16_384), 16_384, 9).unwrap_err().contains("16383 a side"));
        assert_eq!(told(webp(16_383), 16_384, 9), Ok(()));
        assert_eq!(told(variant(None, None), 40_000, 1000), Ok(()));
    }
}
