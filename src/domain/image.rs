//! What is wanted of a picture, and what is too much.

use serde::{Deserialize, Serialize};

mod colour;
mod presets;
mod spec;
mod variant;
mod watermark;

pub use colour::{Colour, NotAColour};
pub use presets::Presets;
pub use spec::{Fault, MAX_VARIANTS, Members, is_name, variants};
pub use variant::{Fit, Focus, Geometry, MAX_SIDE, TooLarge, Variant};
pub use watermark::{Place, Placement, Position, UNITS, UnknownWatermark, Watermark, Watermarks, named_by};

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
    /// AVIF (AV1 Image File Format 1.1), which is written and not read
    Avif,
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
            Self::Avif => "image/avif",
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
            Self::Avif => "avif",
        }
    }

    /// Whether this build encodes it.
    #[must_use]
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Jpeg | Self::Png => true,
            Self::WebP => cfg!(feature = "webp"),
            Self::Avif => cfg!(feature = "avif"),
            Self::Gif => false,
        }
    }

    /// The longest side that it can have, in pixels.
    #[must_use]
    pub fn max_side(self) -> u32 {
        match self {
            Self::WebP => 16_383,
            Self::Jpeg | Self::Gif | Self::Avif => 65_535,
            Self::Png => u32::MAX >> 1,
        }
    }
}

/// How a job's picture is treated, whatever is made of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handling {
    /// What of its metadata the artifacts keep.
    pub metadata: MetadataPolicy,
    /// Whether a picture whose file ends too early is taken for what there is of it.
    pub allow_truncated: bool,
}

/// What artifacts keep of their picture's metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MetadataPolicy {
    /// Nothing.
    #[default]
    None,
    /// Who made it and whose it is: the EXIF fields Artist and Copyright.
    Copyright,
    /// All of EXIF that is still true of the artifact.
    All,
}

impl MetadataPolicy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::None, Self::Copyright, Self::All];

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Copyright => "copyright",
            Self::All => "all",
        }
    }

    /// Reads the name in the API.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str() == name)
    }
}

/// What is shown of a picture before it is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placeholder {
    /// Its [ThumbHash](https://evanw.github.io/thumbhash/), as base64: some 25 bytes from which a blurred picture is made.
    pub thumbhash: String,
    /// The colour that most of it has.
    pub dominant_color: Colour,
}

/// What a picture may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Pixels of one frame, width × height.
    pub max_pixels: u64,
    /// The longer side in pixels.
    pub max_side: u32,
}
