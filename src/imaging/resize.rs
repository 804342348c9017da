//! Smaller pictures, each from the smallest one at hand that is large enough.

use std::borrow::Cow;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::DynamicImage;

use super::ImagingError;

/// So few pixels are kept as they are.
const SMALL: u64 = 1 << 18;

/// From this scale on the filter is given a picture of twice the wanted size, each pixel of which is a plain mean.
/// Six times the wanted size is where making that one first saves time: of 20 million pixels, more than half of it.
const BY_MEANS: f64 = 6.0;

/// A picture at 8 bits a sample and what has been made smaller of it.
pub(super) struct Pyramid<'a> {
    /// Width and height of the picture.
    size: (u32, u32),
    base: Cow<'a, DynamicImage>,
    scale: Scale,
    levels: Vec<DynamicImage>,
    resizer: Resizer,
}

/// Whether a source of this size leaves the filter what it needs: of twice the size, the result cannot be told from
/// one made of the full picture, at a twentieth of the pixels.
pub(super) fn is_enough(source: (f64, f64), scaled: (u32, u32)) -> bool {
    source.0 >= 2.0 * f64::from(scaled.0) && source.1 >= 2.0 * f64::from(scaled.1)
}

/// How the pixels of which a picture is made lie on those that it has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    /// What both sides are divided by, and rounded up.
    pub(super) divisor: u32,
    /// Where the picture begins: what rounding has added lies before it when it was turned.
    pub(super) origin: (f64, f64),
}

#[cfg(test)]
impl Scale {
    /// All of the pixels.
    pub(super) const FULL: Self = Self { divisor: 1, origin: (0.0, 0.0) };
}

/// A part of the picture, in its pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl<'a> Pyramid<'a> {
    pub(super) fn new(base: &'a DynamicImage, size: (u32, u32), scale: Scale) -> Self {
        Self { size, base: eight_bits(base), scale, levels: Vec::new(), resizer: Resizer::new() }
    }

    /// The picture's own size.
    pub(super) fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The whole picture at this size.
    pub(super) fn level(&mut self, width: u32, height: u32) -> Result<Cow<'_, DynamicImage>, ImagingError> {
        if has_size(&self.base, width, height) {
            return Ok(Cow::Borrowed(&self.base));
        }
        if let Some(index) = self.levels.iter().position(|level| has_size(level, width, height)) {
            return self.levels.get(index).map(Cow::Borrowed).ok_or_else(failed);
        }
        let level = self.scaled(None, (width, height))?;
        if pixels(&level) > pixels(&self.base) {
            return Ok(Cow::Owned(level));
        }
        // What is to come is smaller, and made of this one as well as of one that is hardly larger. So all that is
        // kept takes a third more than the largest alone.
        let least = 4 * pixels(&level);
        self.levels.retain(|kept| pixels(kept) >= least || pixels(kept) <= SMALL);
        self.levels.push(level);
        self.levels.last().map(Cow::Borrowed).ok_or_else(failed)
    }

    /// A part of the picture at this size.
    pub(super) fn part(&mut self, area: Area, size: (u32, u32)) -> Result<DynamicImage, ImagingError> {
        self.scaled(Some(area), size)
    }

    fn scaled(
        &mut self,
        area: Option<Area>,
        (width, height): (u32, u32),
    ) -> Result<DynamicImage, ImagingError> {
        let (whole_width, whole_height) = (f64::from(self.size.0), f64::from(self.size.1));
        let area = area.unwrap_or(Area { left: 0.0, top: 0.0, width: whole_width, height: whole_height });
        let scaled_by = |level: &DynamicImage| {
            (f64::from(level.width()) / whole_width, f64::from(level.height()) / whole_height)
        };
        let enough = |level: &&DynamicImage| {
            let (x, y) = scaled_by(level);
            is_enough((area.width * x, area.height * y), (width, height))
        };
        let level = self.levels.iter().filter(enough).min_by_key(|level| pixels(level));
        let of_base = 1.0 / f64::from(self.scale.divisor);
        let (source, (x, y), origin) = match level {
            Some(level) => (level, scaled_by(level), (0.0, 0.0)),
            None => (&*self.base, (of_base, of_base), self.scale.origin),
        };
        let (left, top) = (origin.0 + area.left * x, origin.1 + area.top * y);
        // What rounding adds must not lie outside.
        let part_width = (area.width * x).min(f64::from(source.width()) - left);
        let part_height = (area.height * y).min(f64::from(source.height()) - top);
        let part = ResizeOptions::new().crop(left, top, part_width, part_height);
        let mut filtered = |source: &DynamicImage, (width, height), filter, options: ResizeOptions| {
            let mut scaled = DynamicImage::new(width, height, source.color());
            let options = options.resize_alg(ResizeAlg::Convolution(filter));
            self.resizer.resize(source, &mut scaled, &options).map_err(|_| failed())?;
            // Else the premultiplied copy of a picture with alpha would stay while the variant is encoded.
            self.resizer.reset_internal_buffers();
            Ok(scaled)
        };
        if part_width >= BY_MEANS * f64::from(width) && part_height >= BY_MEANS * f64::from(height) {
            let means = filtered(source, (2 * width, 2 * height), FilterType::Box, part)?;
            return filtered(&means, (width, height), FilterType::Lanczos3, ResizeOptions::new());
        }
        filtered(source, (width, height), FilterType::Lanczos3, part)
    }
}

fn pixels(image: &DynamicImage) -> u64 {
    u64::from(image.width()) * u64::from(image.height())
}

fn has_size(image: &DynamicImage, width: u32, height: u32) -> bool {
    (image.width(), image.height()) == (width, height)
}

fn failed() -> ImagingError {
    ImagingError::undecodable("it could not be resized")
}

/// The picture with 8 bits a sample, which is what JPEG and screens have.
pub(super) fn eight_bits(image: &DynamicImage) -> Cow<'_, DynamicImage> {
    match image {
        DynamicImage::ImageLuma16(_) => Cow::Owned(image.to_luma8().into()),
        DynamicImage::ImageLumaA16(_) => Cow::Owned(image.to_luma_alpha8().into()),
        DynamicImage::ImageRgb16(_) => Cow::Owned(image.to_rgb8().into()),
        DynamicImage::ImageRgba16(_) => Cow::Owned(image.to_rgba8().into()),
        _ => Cow::Borrowed(image),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::imaging::fixtures::noise;

    #[test]
    fn levels_are_made_of_what_is_twice_as_large() {
        let base = DynamicImage::from(noise(400, 400));
        let of_the_base =
            |side| Pyramid::new(&base, (400, 400), Scale::FULL).level(side, side).unwrap().into_owned();
        let mut pyramid = Pyramid::new(&base, (400, 400), Scale::FULL);
        pyramid.level(100, 100).unwrap();
        assert_eq!(*pyramid.level(60, 60).unwrap(), of_the_base(60));
        assert_ne!(*pyramid.level(30, 30).unwrap(), of_the_base(30));
        assert_eq!(*pyramid.level(100, 100).unwrap(), of_the_base(100));
        assert_eq!(*pyramid.level(400, 400).unwrap(), base);
    }
}
