//! The same picture at its full size in fewer bytes.

use image::metadata::Orientation;

use super::container::Header;
use super::decode::Picture;
use super::encode::{self, PngEffort, QUALITY};
use super::metadata::Kept;
use super::{ImagingError, Reporter, Stage, strip};
use crate::domain::image::{Format, Limits};

/// What is tried when the wanted quality does not come out smaller than the input.
const LOWER_QUALITIES: [u8; 3] = [70, 60, 50];

/// A picture and what is known of it.
pub(super) struct Work<'a, 'b> {
    pub(super) input: &'a [u8],
    pub(super) header: &'a Header,
    pub(super) picture: &'a Picture,
    pub(super) kept: &'a Kept,
    pub(super) limits: &'a Limits,
    pub(super) reporter: &'a mut Reporter<'b>,
}

impl Work<'_, '_> {
    /// Never more bytes than the input has, unless turning it or converting its colours made it another picture
    /// that no quality makes as small. The quality is what a lossy format begins with.
    pub(super) fn optimize(mut self, quality: Option<u8>) -> Result<(Format, Vec<u8>), ImagingError> {
        let quality = quality.unwrap_or(QUALITY);
        let stays = self.header.format == Format::Gif || self.header.animated;
        let (format, bytes) = match self.header.format {
            // All frames stay, which no encoder here writes.
            format if stays => (format, self.clean()?),
            Format::Jpeg => (Format::Jpeg, self.jpeg(quality)?),
            Format::WebP => self.webp(quality)?,
            _ => (Format::Png, self.png()?),
        };
        // Frames that stay as they are stored are still to be turned by who shows them.
        let orientation = if stays { self.header.orientation } else { Orientation::NoTransforms };
        Ok((format, self.kept.put(format, bytes, orientation)))
    }

    fn clean(&mut self) -> Result<Vec<u8>, ImagingError> {
        self.reporter.stage(Stage::Encode)?;
        // Where the frames stay as they are, so must the profile that they need.
        strip::clean(self.input, self.header, self.picture.converted, self.limits)
    }

    /// Whether the stored pixels are those to be displayed.
    fn is_unchanged(&self) -> bool {
        // What is cut short is no picture that can be handed on.
        !self.picture.converted && !self.picture.turned && !self.header.truncated
    }

    fn jpeg(&mut self, quality: u8) -> Result<Vec<u8>, ImagingError> {
        let picture = self.picture;
        self.lossy(quality, |quality| encode::small_jpeg(&picture.pixels, quality))
    }

    /// A lossy encoding that is smaller than the input; the input itself where that is unchanged and there
    /// is none at this quality.
    fn lossy(
        &mut self,
        quality: u8,
        encode: impl Fn(u8) -> Result<Vec<u8>, ImagingError>,
    ) -> Result<Vec<u8>, ImagingError> {
        if self.is_unchanged() {
            let clean = self.clean()?;
            self.reporter.stage(Stage::Encode)?;
            let encoded = encode(quality)?;
            return Ok(if encoded.len() < clean.len() { encoded } else { clean });
        }
        let mut smallest: Option<Vec<u8>> = None;
        let lower = LOWER_QUALITIES.into_iter().filter(|lower| *lower < quality);
        for quality in std::iter::once(quality).chain(lower) {
            self.reporter.stage(Stage::Encode)?;
            let encoded = encode(quality)?;
            if encoded.len() + self.kept.len() < self.input.len() {
                return Ok(encoded);
            }
            smallest = Some(match smallest {
                Some(smallest) if smallest.len() <= encoded.len() => smallest,
                _ => encoded,
            });
        }
        smallest.ok_or_else(|| ImagingError::undecodable("it could not be encoded"))
    }

    fn png(&mut self) -> Result<Vec<u8>, ImagingError> {
        let effort = PngEffort::at_full_size(&self.picture.pixels);
        if !self.is_unchanged() {
            self.reporter.stage(Stage::Encode)?;
            return encode::png(&self.picture.pixels, effort);
        }
        let clean = self.clean()?;
        // It reads PNGs more strictly than decoders do; what it rejects stays as it is.
        match encode::smaller_png(&clean, effort) {
            Ok(smaller) if smaller.len() < clean.len() => Ok(smaller),
            _ => Ok(clean),
        }
    }

    #[cfg(feature = "webp")]
    fn webp(&mut self, quality: u8) -> Result<(Format, Vec<u8>), ImagingError> {
        let picture = self.picture;
        let side = picture.pixels.width().max(picture.pixels.height());
        if side > encode::WEBP_MAX_SIDE {
            return self.webp_without_encoder(quality);
        }
        Ok((Format::WebP, self.lossy(quality, |quality| encode::webp(&picture.pixels, quality))?))
    }

    #[cfg(not(feature = "webp"))]
    fn webp(&mut self, quality: u8) -> Result<(Format, Vec<u8>), ImagingError> {
        self.webp_without_encoder(quality)
    }

    /// The input itself, or another format where it has to change.
    fn webp_without_encoder(&mut self, quality: u8) -> Result<(Format, Vec<u8>), ImagingError> {
        if self.is_unchanged() {
            Ok((Format::WebP, self.clean()?))
        } else if self.picture.pixels.color().has_alpha() {
            Ok((Format::Png, self.png()?))
        } else {
            Ok((Format::Jpeg, self.jpeg(quality)?))
        }
    }
}
