//! What the container of a picture says, read without decoding a pixel.
//!
//! Each format has a walk that visits its parts from the first byte to the last that belongs to the
//! picture. Probing listens only to the result; stripping copies the parts it is shown.

use std::io::{self, BufRead, Read, Seek, SeekFrom};
use std::ops::Range;

use image::metadata::Orientation;

use super::sniff::{self, MAGIC_LENGTH};
use super::{Coding, ImagingError, SizeLimit, gif, jpeg, png, swaps_sides, webp};
use crate::domain::image::{Format, Limits};

/// What a walk through a container found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: Format,
    /// As stored, before the orientation is applied.
    pub(super) width: u32,
    /// As stored, before the orientation is applied.
    pub(super) height: u32,
    pub(super) orientation: Orientation,
    pub(super) coding: Coding,
    /// Whether there is more than a still picture.
    pub(super) animated: bool,
    /// Whether the file ends before the picture does.
    pub(super) truncated: bool,
    /// JPEG: an Adobe APP14 segment was seen, which says that CMYK is stored inverted.
    pub(super) adobe: bool,
}

impl Header {
    /// A still picture that is stored as it is displayed.
    pub(super) fn new(format: Format, (width, height): (u32, u32)) -> Self {
        Self {
            format,
            width,
            height,
            orientation: Orientation::NoTransforms,
            coding: Coding::default(),
            animated: false,
            truncated: false,
            adobe: false,
        }
    }

    pub(super) fn displayed_size(&self) -> (u32, u32) {
        if swaps_sides(self.orientation) { (self.height, self.width) } else { (self.width, self.height) }
    }
}

/// What a part of a container is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Needed to show the picture.
    Picture,
    /// An ICC profile, which is needed where the colours are not sRGB.
    Profile,
    /// EXIF: how it was taken, and much else.
    Exif,
    /// Everything else that someone put in.
    Metadata,
}

/// A stretch of the file. Bytes in no part belong to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) role: Role,
    pub(super) range: Range<u64>,
}

/// Hears of each part, in the file's order.
pub(super) type Visit<'a> = &'a mut dyn FnMut(Part);

/// Walks through the container that starts at the source's first byte.
///
/// Where `allow_truncated` is set, a JPEG or a still PNG may end once its picture has begun; of other formats nothing
/// can be shown then.
pub(super) fn walk<R: BufRead + Seek>(
    source: &mut R,
    limits: &Limits,
    allow_truncated: bool,
    visit: Visit<'_>,
) -> Result<Header, ImagingError> {
    let length = source.seek(SeekFrom::End(0))?;
    source.seek(SeekFrom::Start(0))?;
    let mut start = Vec::with_capacity(MAGIC_LENGTH);
    source.by_ref().take(MAGIC_LENGTH as u64).read_to_end(&mut start)?;
    source.seek(SeekFrom::Start(0))?;
    let Some(format) = sniff::format(&start) else {
        return Err(ImagingError::Unsupported { detected: sniff::foreign(&start) });
    };
    let mut source = Source { inner: source, position: 0, length, format, allow_truncated };
    match format {
        Format::Jpeg => jpeg::walk(&mut source, limits, visit),
        Format::Png => png::walk(&mut source, limits, visit),
        Format::WebP => webp::walk(&mut source, limits, visit),
        Format::Gif => gif::walk(&mut source, limits, visit),
        // It is not sniffed as one.
        Format::Avif => Err(ImagingError::Unsupported { detected: Some("AVIF") }),
    }
}

/// Refuses what no picture has and what the limits forbid.
pub(super) fn check_size((width, height): (u32, u32), limits: &Limits) -> Result<(), ImagingError> {
    let too_large = |limit| Err(ImagingError::TooLarge { width, height, limit });
    if width == 0 || height == 0 {
        return Err(ImagingError::undecodable("its header says that it has no pixels"));
    }
    if width.max(height) > limits.max_side {
        return too_large(SizeLimit::Side(limits.max_side));
    }
    if u64::from(width) * u64::from(height) > limits.max_pixels {
        return too_large(SizeLimit::Pixels(limits.max_pixels));
    }
    Ok(())
}

/// The orientation in an EXIF block, with or without the `Exif\0\0` that JPEG puts before it.
///
/// Cameras write the prefix in APP1; many programs copy it into WebP and PNG, where it does not belong.
pub(super) fn orientation(exif: &[u8]) -> Option<Orientation> {
    Orientation::from_exif_chunk(exif.strip_prefix(EXIF_PREFIX).unwrap_or(exif))
}

/// What precedes the EXIF block in a JPEG.
pub(super) const EXIF_PREFIX: &[u8] = b"Exif\0\0";

/// A picture's bytes with a position, in which the end of the file is a truncated picture.
#[derive(Debug)]
pub(super) struct Source<'a, R> {
    inner: &'a mut R,
    position: u64,
    length: u64,
    format: Format,
    allow_truncated: bool,
}

impl<R: BufRead + Seek> Source<'_, R> {
    /// Whether what went wrong with a picture that has begun may be passed over.
    pub(super) fn allows(&self, error: &ImagingError) -> bool {
        self.allow_truncated && matches!(error, ImagingError::Truncated { .. })
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// How many bytes the file has left.
    pub(super) fn remaining(&self) -> u64 {
        self.length.saturating_sub(self.position)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ImagingError> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(|error| self.failed(error))?;
        self.position += N as u64;
        Ok(bytes)
    }

    pub(super) fn byte(&mut self) -> Result<u8, ImagingError> {
        self.array().map(|[byte]| byte)
    }

    /// The next `length` bytes, or as many of them as an EXIF block can have (a JPEG segment's 64 KiB),
    /// so that no length in a file decides how much is allocated. Ends after all `length` bytes.
    pub(super) fn block(&mut self, length: u64) -> Result<Vec<u8>, ImagingError> {
        const MOST: u64 = 0xFFFF;
        let taken = length.min(MOST);
        if taken > self.remaining() {
            return Err(self.truncated());
        }
        let mut block = Vec::new();
        let read = self.inner.by_ref().take(taken).read_to_end(&mut block)?;
        self.position += read as u64;
        self.skip(length - taken)?;
        Ok(block)
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<(), ImagingError> {
        if count > self.remaining() {
            return Err(self.truncated());
        }
        let offset = i64::try_from(count).map_err(|_| self.truncated())?;
        self.inner.seek_relative(offset)?;
        self.position += count;
        Ok(())
    }

    /// Goes on to just after the next byte of this value.
    pub(super) fn skip_past(&mut self, byte: u8) -> Result<(), ImagingError> {
        loop {
            let buffered = self.inner.fill_buf()?;
            let (count, found) = match buffered.iter().position(|&candidate| candidate == byte) {
                Some(index) => (index + 1, true),
                None => (buffered.len(), false),
            };
            if count == 0 {
                return Err(self.truncated());
            }
            self.inner.consume(count);
            self.position += count as u64;
            if found {
                return Ok(());
            }
        }
    }

    pub(super) fn truncated(&self) -> ImagingError {
        let name = self.format.media_type().trim_start_matches("image/").to_uppercase();
        ImagingError::Truncated {
            detail: format!("the {name} file ends after {} bytes, before its picture does", self.length),
        }
    }

    fn failed(&self, error: io::Error) -> ImagingError {
        if error.kind() == io::ErrorKind::UnexpectedEof { self.truncated() } else { error.into() }
    }
}
