//! The same picture at its full size in fewer bytes.

use super::container::Header;
use super::decode::Picture;
use super::encode::{self, PngEffort, QUALITY};
use super::{ImagingError, Reporter, Stage, strip};
use crate::domain::image::{Format, Limits};

/// What is tried when the usual quality does not come out smaller than the input.
const QUALITIES: [u8; 4] = [QUALITY, 70, 60, 50];

/// Never more bytes than `input` has, unless turning it or converting its colours made it another picture
/// that no quality makes as small.
pub(super) fn optimize(
    input: &[u8],
    header: &Header,
    picture: &Picture,
    limits: &Limits,
    reporter: &mut Reporter<'_>,
) -> Result<(Format, Vec<u8>), ImagingError> {
    let mut work = Work { input, header, picture, limits, reporter };
    match header.format {
        // All frames stay, which no encoder here writes.
        Format::Gif => Ok((Format::Gif, work.clean()?)),
        format if header.animated => Ok((format, work.clean()?)),
        Format::Jpeg => Ok((Format::Jpeg, work.jpeg()?)),
        Format::Png => Ok((Format::Png, work.png()?)),
        Format::WebP => work.webp(),
    }
}

struct Work<'a, 'b> {
    input: &'a [u8],
    header: &'a Header,
    picture: &'a Picture,
    limits: &'a Limits,
    reporter: &'a mut Reporter<'b>,
}

impl Work<'_, '_> {
    fn clean(&mut self) -> Result<Vec<u8>, ImagingError> {
        self.reporter.stage(Stage::Encode)?;
        // Where the frames stay as they are, so must the profile that they need.
        strip::clean(self.input, self.header, self.picture.converted, self.limits)
    }

    /// Whether the stored pixels are those to be displayed.
    fn is_unchanged(&self) -> bool {
        !self.picture.converted && !self.picture.turned
    }

    fn jpeg(&mut self) -> Result<Vec<u8>, ImagingError> {
        let picture = self.picture;
        self.lossy(|quality| encode::small_jpeg(&picture.pixels, quality))
    }

    /// A lossy encoding that is smaller than the input; the input itself where that is unchanged and there
    /// is none at the usual quality.
    fn lossy(
        &mut self,
        encode: impl Fn(u8) -> Result<Vec<u8>, ImagingError>,
    ) -> Result<Vec<u8>, ImagingError> {
        if self.is_unchanged() {
            let clean = self.clean()?;
            self.reporter.stage(Stage::Encode)?;
            let encoded = encode(QUALITY)?;
            return Ok(if encoded.len() < clean.len() { encoded } else { clean });
        }
        let mut smallest: Option<Vec<u8>> = None;
        for quality in QUALITIES {
            self.reporter.stage(Stage::Encode)?;
            let encoded = encode(quality)?;
            if encoded.len() < self.input.len() {
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
    fn webp(&mut self) -> Result<(Format, Vec<u8>), ImagingError> {
        let picture = self.picture;
        let side = picture.pixels.width().max(picture.pixels.height());
        if side > encode::WEBP_MAX_SIDE {
            return self.webp_without_encoder();
        }
        Ok((Format::WebP, self.lossy(|quality| encode::webp(&picture.pixels, quality))?))
    }

    #[cfg(not(feature = "webp"))]
    fn webp(&mut self) -> Result<(Format, Vec<u8>), ImagingError> {
        self.webp_without_encoder()
    }

    /// The input itself, or another format where it has to change.
    fn webp_without_encoder(&mut self) -> Result<(Format, Vec<u8>), ImagingError> {
        if self.is_unchanged() {
            Ok((Format::WebP, self.clean()?))
        } else if self.picture.pixels.color().has_alpha() {
            Ok((Format::Png, self.png()?))
        } else {
            Ok((Format::Jpeg, self.jpeg()?))
        }
    }
}
