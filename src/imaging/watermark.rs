//! Watermarks, drawn on artifacts.

use std::borrow::Cow;

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{PixelType, Resizer};
use image::{DynamicImage, RgbaImage};

use super::ImagingError;
use crate::domain::image::{UNITS, Watermark};

/// The pixels with the watermark on them. They are in colour then, and have an alpha channel if they had one.
pub(super) fn drawn(
    pixels: Cow<'_, DynamicImage>,
    watermark: &Watermark,
) -> Result<DynamicImage, ImagingError> {
    let place = watermark.placement.place(watermark.size, (pixels.width(), pixels.height()));
    let mark = scaled(watermark, place.size).ok_or_else(failed)?;
    let opacity = watermark.placement.opacity;
    let at = |x: u32, y: u32| (place.left + x, place.top + y);
    if pixels.color().has_alpha() {
        let mut canvas = pixels.into_owned().into_rgba8();
        for (x, y, mark) in mark.enumerate_pixels() {
            let (x, y) = at(x, y);
            let below = canvas.get_pixel_mut(x, y);
            below.0 = over(mark.0, opacity, below.0);
        }
        return Ok(canvas.into());
    }
    let mut canvas = pixels.into_owned().into_rgb8();
    for (x, y, mark) in mark.enumerate_pixels() {
        let (x, y) = at(x, y);
        let below = canvas.get_pixel_mut(x, y);
        let [r, g, b] = below.0;
        let [r, g, b, _] = over(mark.0, opacity, [r, g, b, u8::MAX]);
        below.0 = [r, g, b];
    }
    Ok(canvas.into())
}

/// The watermark at this size; what cannot be seen of it counts for nothing in what can.
fn scaled(watermark: &Watermark, (width, height): (u32, u32)) -> Option<RgbaImage> {
    let (own_width, own_height) = watermark.size;
    let source = ImageRef::new(own_width, own_height, &watermark.pixels, PixelType::U8x4).ok()?;
    let mut scaled = Image::new(width, height, PixelType::U8x4);
    // As the library has it, this is Lanczos3 with alpha multiplied in.
    Resizer::new().resize(&source, &mut scaled, None).ok()?;
    RgbaImage::from_raw(width, height, scaled.into_vec())
}

/// One pixel over another, both with straight alpha: the operator "over" of Porter and Duff, rounded half up.
fn over(mark: [u8; 4], opacity: u16, below: [u8; 4]) -> [u8; 4] {
    // The mark's alpha in parts of this, and how much of the other it leaves.
    const WHOLE: u64 = u8::MAX as u64 * UNITS as u64;
    let seen = u64::from(mark[3]) * u64::from(opacity);
    if seen == 0 {
        return below;
    }
    let (of_mark, of_below) = (u64::from(u8::MAX) * seen, u64::from(below[3]) * (WHOLE - seen));
    let both = of_mark + of_below;
    let rounded = |sum: u64, parts: u64| u8::try_from((2 * sum + parts) / (2 * parts)).unwrap_or(u8::MAX);
    let mixed = |index: usize| {
        let sum = u64::from(mark[index]) * of_mark + u64::from(below[index]) * of_below;
        rounded(sum, both)
    };
    [mixed(0), mixed(1), mixed(2), rounded(both, WHOLE)]
}

fn failed() -> ImagingError {
    ImagingError::undecodable("its watermark could not be drawn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opaque_pixels_are_mixed_by_alpha_times_opacity() {
        let on = |alpha, opacity| over([255, 0, 100, alpha], opacity, [0, 255, 100, 255]);
        assert_eq!(on(255, UNITS), [255, 0, 100, 255]);
        assert_eq!(on(255, 5_000), [128, 128, 100, 255], "127.5 is rounded up");
        assert_eq!(on(51, 5_000), [26, 230, 100, 255], "a tenth: 25.5 and 229.5");
        assert_eq!(on(0, UNITS), [0, 255, 100, 255]);
        assert_eq!(on(255, 0), [0, 255, 100, 255]);
    }

    #[test]
    fn where_nothing_was_seen_the_mark_alone_is() {
        assert_eq!(over([10, 20, 30, 255], 5_000, [200, 200, 200, 0]), [10, 20, 30, 128]);
        // 1/2 over 1/2 leaves 1/2 + 1/2 · 1/2, of which the mark is two thirds: 170 of 255.
        let half = over([255, 0, 0, 255], 5_000, [0, 0, 255, 128]);
        assert_eq!(half, [170, 0, 85, 192]);
        assert_eq!(over([9, 9, 9, 0], UNITS, [1, 2, 3, 4]), [1, 2, 3, 4]);
    }

    #[test]
    fn no_pair_of_pixels_is_out_of_range() {
        for alpha in 0..=u8::MAX {
            for below in [0, 1, 127, 254, u8::MAX] {
                let [r, g, b, a] = over([255, 7, 0, alpha], 9_999, [255, 7, 0, below]);
                assert_eq!((r, g, b), (255, 7, 0), "{alpha} on {below}");
                assert!(a >= below, "{alpha} on {below}: {a}");
            }
        }
    }
}
