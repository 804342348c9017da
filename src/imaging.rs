//! Pictures in, artifacts out: probe, decode, orient, convert to sRGB, resize, encode.
//!
//! Everything here is a pure function over bytes. Nothing reads a clock or a file name; whoever calls
//! [`render`] hears of each step and may stop it there. [`Pool`] holds the threads this work belongs on.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Cursor, Seek};
use std::ops::ControlFlow;

use image::metadata::Orientation;
use serde::{Deserialize, Serialize};

use crate::domain::image::{
    Format, Handling, Limits, Placeholder, UnknownWatermark, Variant, Watermarks, named_by,
};

mod cmyk;
mod colour;
mod compose;
mod container;
mod crop;
mod decode;
mod encode;
#[cfg(test)]
mod fixtures;
mod frames;
mod gif;
mod inside;
mod jpeg;
mod memory;
mod metadata;
mod optimize;
mod placeholder;
mod png;
mod pool;
mod process;
#[cfg(feature = "turbojpeg")]
mod reduced;
mod resize;
mod sniff;
mod strip;
#[cfg(test)]
mod tests;
mod walls;
mod watermark;
mod webp;

pub use frames::Walls;
pub use inside::{Bounds, serve};
pub use memory::{Budget, Coding, Reservation};
pub use pool::{Permit, Pool, Task};
pub use process::Launcher;

/// What the header of a picture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The format, by its magic bytes.
    pub format: Format,
    /// Pixels from left to right as displayed, that is with the EXIF orientation applied.
    pub width: u32,
    /// Pixels from top to bottom as displayed.
    pub height: u32,
    /// What decoding it takes.
    pub coding: Coding,
}

/// One finished artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// The variant's name.
    pub name: String,
    /// The format it is encoded in.
    pub format: Format,
    /// Pixels from left to right as displayed.
    pub width: u32,
    /// Pixels from top to bottom as displayed.
    pub height: u32,
    /// The whole file; it travels beside the rest.
    #[serde(skip)]
    pub bytes: Vec<u8>,
}

/// What a rendering is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading the pixels of the input.
    Decode,
    /// Making a smaller picture.
    Resize,
    /// Writing an artifact; told again for each further try at fewer bytes.
    Encode,
}

impl Stage {
    /// The stage's name in events and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Resize => "resize",
            Self::Encode => "encode",
        }
    }
}

/// A step of a rendering, in the order in which they happen.
#[derive(Debug, Serialize, Deserialize)]
pub enum Step {
    /// The stage begins.
    Stage(Stage),
    /// What is shown of the picture until the artifacts are there; told before the first of them.
    Placeholder(Placeholder),
    /// An artifact is finished.
    Artifact(Rendered),
}

/// The limit that a picture exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SizeLimit {
    /// The longer side, in pixels.
    Side(u32),
    /// Width × height.
    Pixels(u64),
    /// The memory that working on it takes, and what there is of it, in MiB.
    Memory {
        /// What it takes.
        needed: u64,
        /// What there is.
        budget: u32,
    },
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Side(limit) => write!(f, "at most {limit} pixels a side are accepted"),
            Self::Pixels(limit) => write!(f, "at most {limit} pixels in all are accepted"),
            Self::Memory { needed, budget } => {
                write!(f, "it takes {needed} MiB of memory to work on, and {budget} are there for it")
            }
        }
    }
}

/// Why there is no picture to work with, or why the work ended early.
#[derive(thiserror::Error, Debug)]
pub enum ImagingError {
    /// Not one of the formats that are read.
    #[error("{}", unsupported(*.detected))]
    Unsupported {
        /// What it is, where the first bytes tell.
        detected: Option<&'static str>,
    },
    /// More pixels than the limits allow.
    #[error("the picture is too large: {width} × {height} pixels; {limit}")]
    TooLarge {
        /// As stored.
        width: u32,
        /// As stored.
        height: u32,
        /// The limit it exceeds.
        limit: SizeLimit,
    },
    /// The file ends before the picture does.
    #[error("the picture is cut short: {detail}")]
    Truncated {
        /// Where.
        detail: String,
    },
    /// Damaged, contradictory, or made in a way that is not read.
    #[error("the picture cannot be decoded: {detail}")]
    Undecodable {
        /// What is wrong with it.
        detail: String,
    },
    /// A variant names a watermark that is not there.
    #[error(transparent)]
    UnknownWatermark(#[from] UnknownWatermark),
    /// The caller asked to stop.
    #[error("the work on the picture was stopped")]
    Stopped,
    /// The picture set off a defect in the imaging code.
    #[error("the picture could not be processed because of an internal error")]
    Panicked,
    /// The process that worked on the picture died, by the picture's doing or not.
    #[error("the process that worked on the picture died: {reason}")]
    Died {
        /// How.
        reason: String,
    },
    /// The source could not be read.
    #[error("the picture could not be read")]
    Io(#[from] io::Error),
}

impl ImagingError {
    fn undecodable(detail: impl Into<String>) -> Self {
        Self::Undecodable { detail: detail.into() }
    }
}

fn unsupported(detected: Option<&'static str>) -> String {
    match detected {
        Some(what) => format!("the file is {what}; JPEG, PNG, WebP and GIF pictures are accepted"),
        None => "the file is not a JPEG, PNG, WebP or GIF picture".to_owned(),
    }
}

/// Reads header and container structure, from the source's start, and decodes no pixels.
///
/// Takes constant memory, whatever the header claims.
///
/// # Errors
///
/// Refuses by name what is no JPEG, PNG, WebP or GIF, what exceeds `limits`, and what is structurally
/// truncated (unless `handling` allows that) or corrupt.
pub fn probe<R: BufRead + Seek>(
    source: &mut R,
    handling: &Handling,
    limits: &Limits,
) -> Result<Probe, ImagingError> {
    let header = container::walk(source, limits, handling.allow_truncated, &mut |_| ())?;
    let (width, height) = header.displayed_size();
    Ok(Probe { format: header.format, width, height, coding: header.coding })
}

/// Makes each of `variants` of the picture in `input`, small ones first, as they are soonest done. `watermarks` are those
/// that they name.
///
/// `report` is called before each stage, with the placeholder and with each finished artifact; where it breaks, the
/// work ends.
///
/// # Errors
///
/// Everything that [`probe`] refuses, pictures whose pixels cannot be decoded, variants that would be too large or whose
/// watermark is missing, and [`ImagingError::Stopped`] when `report` breaks.
pub fn render(
    input: &[u8],
    variants: &[Variant],
    watermarks: &Watermarks,
    handling: &Handling,
    limits: &Limits,
    report: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<(), ImagingError> {
    if variants.is_empty() {
        return Ok(());
    }
    named_by(variants, watermarks)?;
    let mut reporter = Reporter { report };
    // The caller's own probe is not relied on: decoders show truncated pictures with a grey rest and
    // allocate what headers claim.
    let mut exif = None;
    let header = container::walk(&mut Cursor::new(input), limits, handling.allow_truncated, &mut |part| {
        if part.role == container::Role::Exif {
            exif.get_or_insert(part.range);
        }
    })?;
    let kept = metadata::Kept::read(input, &header, exif, handling.metadata);
    let (width, height) = header.displayed_size();
    for variant in variants {
        let checked = variant.check_size(width, height);
        checked.map_err(|error| ImagingError::undecodable(format!("{}: {error}", variant.name)))?;
    }
    reporter.stage(Stage::Decode)?;
    let picture = decode::decode(input, &header, variants, limits)?;
    let (full, sized): (Vec<_>, Vec<_>) =
        variants.iter().partition(|variant| variant.is_optimized(header.format));
    render_sized(&picture, sized, watermarks, &kept, &mut reporter)?;
    for variant in full {
        let (input, header, picture, kept) = (input, &header, &picture, &kept);
        let work = optimize::Work { input, header, picture, kept, limits, reporter: &mut reporter };
        let (format, bytes) = work.optimize(variant.quality)?;
        reporter.artifact(Rendered { name: variant.name.clone(), format, width, height, bytes })?;
    }
    Ok(())
}

/// The placeholder and all variants that are encoded anew, biggest first, so that each can be made from a bigger one.
fn render_sized(
    picture: &decode::Picture,
    variants: Vec<&Variant>,
    watermarks: &Watermarks,
    kept: &metadata::Kept,
    reporter: &mut Reporter<'_>,
) -> Result<(), ImagingError> {
    let (width, height) = picture.size;
    let mut sized: Vec<_> =
        variants.into_iter().map(|variant| (variant, variant.geometry(width, height))).collect();
    sized.sort_by_key(|(_, geometry)| {
        let (width, height) = geometry.scaled;
        std::cmp::Reverse(u64::from(width) * u64::from(height))
    });
    let mut pyramid = resize::Pyramid::new(&picture.pixels, picture.size, picture.scale);
    let mut shown = false;
    for (variant, geometry) in sized {
        reporter.stage(Stage::Resize)?;
        if !shown {
            shown = true;
            if geometry.crop.is_none() {
                // It is made of a smaller picture in a tenth of the time.
                pyramid.level(geometry.scaled.0, geometry.scaled.1)?;
            }
            reporter.step(Step::Placeholder(placeholder::of(&mut pyramid)?))?;
        }
        let mut pixels = compose::composed(&mut pyramid, variant, &geometry)?;
        if let Some(watermark) = variant.watermark.as_ref().and_then(|name| watermarks.get(name)) {
            pixels = Cow::Owned(watermark::drawn(pixels, watermark)?);
        }
        reporter.stage(Stage::Encode)?;
        let (format, bytes) = encode::variant(&pixels, variant, kept)?;
        let (width, height) = geometry.size;
        reporter.artifact(Rendered { name: variant.name.clone(), format, width, height, bytes })?;
    }
    if !shown {
        reporter.step(Step::Placeholder(placeholder::of(&mut pyramid)?))?;
    }
    Ok(())
}

/// Tells the caller of each step and turns its break into an error.
struct Reporter<'a> {
    report: &'a mut dyn FnMut(Step) -> ControlFlow<()>,
}

impl Reporter<'_> {
    fn stage(&mut self, stage: Stage) -> Result<(), ImagingError> {
        self.step(Step::Stage(stage))
    }

    fn artifact(&mut self, artifact: Rendered) -> Result<(), ImagingError> {
        self.step(Step::Artifact(artifact))
    }

    fn step(&mut self, step: Step) -> Result<(), ImagingError> {
        match (self.report)(step) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ImagingError::Stopped),
        }
    }
}

/// Whether applying `orientation` exchanges width and height.
fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}
