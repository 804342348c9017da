//! What is wanted of a picture, and what is too much.

use serde::{Deserialize, Serialize};

/// The picture formats that are read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// JPEG (ITU-T T.81)
    Jpeg,
    /// PNG (W3C PNG, third edition)
    Png,
    /// WebP (RFC 9649)
    WebP,
    /// GIF89a; its first frame is what variants are made of
    Gif,
}

impl Format {
    /// The registered media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::WebP => "image/webp",
            Self::Gif => "image/gif",
        }
    }

    /// The usual file name extension, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::WebP => "webp",
            Self::Gif => "gif",
        }
    }
}

/// One wanted artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// The artifact's name, part of its URL.
    pub name: String,
    /// The width in pixels that is aimed at; `None` keeps the size and re-encodes for fewer bytes.
    pub width: Option<u32>,
}

impl Variant {
    /// What every job makes: `optimized` at full size, `preview` 800 px and `thumbnail` 200 px wide.
    #[must_use]
    pub fn defaults() -> Vec<Self> {
        [("optimized", None), ("preview", Some(800)), ("thumbnail", Some(200))]
            .map(|(name, width)| Self { name: name.to_owned(), width })
            .to_vec()
    }

    /// The size of this variant of a picture of `width` × `height` pixels (as displayed).
    ///
    /// The picture is never enlarged. The height follows the aspect ratio and is rounded half up,
    /// at least 1: 3840 × 2160 at 200 px is 200 × 113 (112.5 rounded up).
    #[must_use]
    pub fn size(&self, width: u32, height: u32) -> (u32, u32) {
        match self.width {
            Some(target) if target < width => {
                let (t, w, h) = (u64::from(target), u64::from(width), u64::from(height));
                // floor(h·t/w + 1/2) in whole numbers: (2·h·t + w) / 2w. As t < w it is at most h, a u32.
                let scaled = (2 * h * t + w) / (2 * w);
                (target, u32::try_from(scaled).unwrap_or(u32::MAX).max(1))
            }
            _ => (width, height),
        }
    }
}

/// What a picture may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Pixels of one frame, width × height.
    pub max_pixels: u64,
    /// The longer side in pixels.
    pub max_side: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variant(width: Option<u32>) -> Variant {
        Variant { name: "v".to_owned(), width }
    }

    #[test]
    fn sizes_round_half_up_and_never_grow() {
        assert_eq!(variant(Some(200)).size(3840, 2160), (200, 113));
        assert_eq!(variant(Some(800)).size(4032, 3024), (800, 600));
        assert_eq!(variant(Some(800)).size(640, 480), (640, 480));
        assert_eq!(variant(Some(200)).size(200, 100), (200, 100));
        assert_eq!(variant(Some(200)).size(16_000, 1), (200, 1));
        assert_eq!(variant(Some(1)).size(2, u32::MAX), (1, 2_147_483_648));
        assert_eq!(variant(None).size(6028, 3391), (6028, 3391));
    }
}
