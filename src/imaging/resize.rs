//! Smaller pictures, each from the smallest one at hand that is large enough.

use std::borrow::Cow;

use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use image::DynamicImage;

use super::ImagingError;

/// A picture at 8 bits a sample and what has been made smaller of it.
pub(super) struct Pyramid<'a> {
    base: Cow<'a, DynamicImage>,
    /// In the order in which they were asked for, which is big to small.
    levels: Vec<DynamicImage>,
    resizer: Resizer,
}

impl<'a> Pyramid<'a> {
    pub(super) fn new(base: &'a DynamicImage) -> Self {
        Self { base: eight_bits(base), levels: Vec::new(), resizer: Resizer::new() }
    }

    /// The picture at this size, which is at most its own.
    pub(super) fn level(&mut self, width: u32, height: u32) -> Result<&DynamicImage, ImagingError> {
        if has_size(&self.base, width, height) {
            return Ok(&self.base);
        }
        if let Some(index) = self.levels.iter().position(|level| has_size(level, width, height)) {
            return self.levels.get(index).ok_or_else(failed);
        }
        let mut level = DynamicImage::new(width, height, self.base.color());
        let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
        // A level of twice the size leaves the filter what it needs: the result cannot be told from one
        // made of the full picture, at a twentieth of the pixels.
        let enough = |level: &&DynamicImage| level.width() >= 2 * width && level.height() >= 2 * height;
        let source = self.levels.iter().rfind(enough).unwrap_or(&self.base);
        self.resizer.resize(source, &mut level, &options).map_err(|_| failed())?;
        self.levels.push(level);
        self.levels.last().ok_or_else(failed)
    }
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
        let of_the_base = |side| Pyramid::new(&base).level(side, side).unwrap().clone();
        let mut pyramid = Pyramid::new(&base);
        pyramid.level(100, 100).unwrap();
        assert_eq!(*pyramid.level(60, 60).unwrap(), of_the_base(60));
        assert_ne!(*pyramid.level(30, 30).unwrap(), of_the_base(30));
        assert_eq!(*pyramid.level(100, 100).unwrap(), of_the_base(100));
        assert_eq!(*pyramid.level(400, 400).unwrap(), base);
    }
}
