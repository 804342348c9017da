//! A variant's pixels: scaled, cut, filled, and with something behind them.

use std::borrow::Cow;

use image::{DynamicImage, RgbImage, Rgba, RgbaImage, imageops};

use super::resize::Pyramid;
use super::{ImagingError, crop};
use crate::domain::image::{Colour, Fit, Format, Geometry, Variant};

/// The pixels of a variant, as they are to be encoded.
pub(super) fn composed<'a>(
    pyramid: &'a mut Pyramid<'_>,
    variant: &Variant,
    geometry: &Geometry,
) -> Result<Cow<'a, DynamicImage>, ImagingError> {
    let scaled = match geometry.crop {
        Some(part) => {
            let area = crop::area(pyramid, variant.focus, part)?;
            Cow::Owned(pyramid.part(area, geometry.scaled)?)
        }
        None => pyramid.level(geometry.scaled.0, geometry.scaled.1)?,
    };
    let has_alpha = scaled.color().has_alpha();
    // What cannot be seen through needs something behind it.
    let behind = variant.background.or((variant.format == Some(Format::Jpeg)).then_some(Colour::WHITE));
    let shown = match behind {
        Some(colour) if has_alpha => Cow::Owned(flattened(&scaled, colour)),
        _ => scaled,
    };
    if variant.fit != Fit::Contain || geometry.scaled == geometry.size {
        return Ok(shown);
    }
    // Without a format an opaque picture becomes a JPEG; its margin is no reason for something larger.
    let margin = behind.or((variant.format.is_none() && !has_alpha).then_some(Colour::WHITE));
    Ok(Cow::Owned(padded(&shown, geometry.size, margin)))
}

/// The picture on a colour.
fn flattened(pixels: &DynamicImage, Colour(behind): Colour) -> DynamicImage {
    let pixels = match pixels {
        DynamicImage::ImageRgba8(pixels) => Cow::Borrowed(pixels),
        _ => Cow::Owned(pixels.to_rgba8()),
    };
    let mut opaque = RgbImage::new(pixels.width(), pixels.height());
    for (to, from) in opaque.pixels_mut().zip(pixels.pixels()) {
        let alpha = u16::from(from[3]);
        for ((to, from), behind) in to.0.iter_mut().zip(from.0).zip(behind) {
            // At most 255 · 255 + 127, and of that the 255th part is a byte.
            let mixed = (u16::from(from) * alpha + u16::from(behind) * (255 - alpha) + 127) / 255;
            *to = u8::try_from(mixed).unwrap_or(u8::MAX);
        }
    }
    opaque.into()
}

/// The picture in the middle of a larger one; what an odd margin has left is at the right and at the bottom. Without a
/// colour the margin is transparent.
fn padded(pixels: &DynamicImage, (width, height): (u32, u32), margin: Option<Colour>) -> DynamicImage {
    let left = i64::from(width.saturating_sub(pixels.width()) / 2);
    let top = i64::from(height.saturating_sub(pixels.height()) / 2);
    match margin {
        Some(Colour(rgb)) => {
            let mut canvas = RgbImage::from_pixel(width, height, rgb.into());
            imageops::replace(&mut canvas, &pixels.to_rgb8(), left, top);
            canvas.into()
        }
        None => {
            let mut canvas = RgbaImage::from_pixel(width, height, Rgba([0; 4]));
            imageops::replace(&mut canvas, &pixels.to_rgba8(), left, top);
            canvas.into()
        }
    }
}
