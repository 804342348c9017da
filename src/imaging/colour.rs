//! Colours to sRGB, by the embedded profile.

use image::DynamicImage;
use moxcms::{CmsError, ColorProfile, DataColorSpace, Layout, TransformExecutor, TransformOptions};

/// Samples that are converted at a time. What is converted is copied first, so this bounds the copy; a
/// multiple of 1, 2, 3 and 4 samples a pixel.
const STRIP: usize = 12 * 4096;

/// Profiles that move no colour further than this are sRGB under another name: eight bits can't hold
/// the difference, and their many versions differ by rounding.
const SAME: u8 = 2;

/// Converts in place. False where nothing changes: the profile is sRGB, is broken, or is one for other
/// pixels than these. A picture with a wrong profile is still a picture.
pub(super) fn to_srgb(pixels: &mut DynamicImage, profile: &[u8]) -> bool {
    let Ok(profile) = ColorProfile::new_from_slice(profile) else { return false };
    if is_srgb(&profile).unwrap_or(true) {
        return false;
    }
    match pixels {
        DynamicImage::ImageLuma8(image) => convert_8(image, &profile, Layout::Gray),
        DynamicImage::ImageLumaA8(image) => convert_8(image, &profile, Layout::GrayAlpha),
        DynamicImage::ImageRgb8(image) => convert_8(image, &profile, Layout::Rgb),
        DynamicImage::ImageRgba8(image) => convert_8(image, &profile, Layout::Rgba),
        DynamicImage::ImageLuma16(image) => convert_16(image, &profile, Layout::Gray),
        DynamicImage::ImageLumaA16(image) => convert_16(image, &profile, Layout::GrayAlpha),
        DynamicImage::ImageRgb16(image) => convert_16(image, &profile, Layout::Rgb),
        DynamicImage::ImageRgba16(image) => convert_16(image, &profile, Layout::Rgba),
        _ => return false,
    }
    .is_ok()
}

fn convert_8(samples: &mut [u8], profile: &ColorProfile, layout: Layout) -> Result<(), CmsError> {
    let srgb = ColorProfile::new_srgb();
    let transform = profile.create_transform_8bit(layout, &srgb, layout, TransformOptions::default())?;
    convert(samples, transform.as_ref())
}

fn convert_16(samples: &mut [u16], profile: &ColorProfile, layout: Layout) -> Result<(), CmsError> {
    let srgb = ColorProfile::new_srgb();
    let transform = profile.create_transform_16bit(layout, &srgb, layout, TransformOptions::default())?;
    convert(samples, transform.as_ref())
}

fn convert<V: Copy + Default>(
    samples: &mut [V],
    transform: &dyn TransformExecutor<V>,
) -> Result<(), CmsError> {
    let mut before = Vec::with_capacity(STRIP.min(samples.len()));
    for strip in samples.chunks_mut(STRIP) {
        before.clear();
        before.extend_from_slice(strip);
        transform.transform(&before, strip)?;
    }
    Ok(())
}

/// Whether the profile leaves all colours of a grid where they are.
fn is_srgb(profile: &ColorProfile) -> Result<bool, CmsError> {
    let (layout, grid) = match profile.color_space {
        DataColorSpace::Gray => (Layout::Gray, (0..=255).collect()),
        DataColorSpace::Rgb => (Layout::Rgb, rgb_grid()),
        _ => return Err(CmsError::UnsupportedProfileConnection),
    };
    let mut converted = grid.clone();
    convert_8(&mut converted, profile, layout)?;
    Ok(grid.iter().zip(&converted).all(|(before, after)| before.abs_diff(*after) <= SAME))
}

/// 16 × 16 × 16 colours, in steps of 17 from 0 to 255.
fn rgb_grid() -> Vec<u8> {
    let steps = || (0..=255_u8).step_by(17);
    steps().flat_map(|r| steps().flat_map(move |g| steps().flat_map(move |b| [r, g, b]))).collect()
}

#[cfg(test)]
mod tests {
    use image::{GrayImage, ImageBuffer, Luma, Rgb, RgbImage};

    use super::*;

    fn grey_profile(gamma: f32) -> Vec<u8> {
        ColorProfile::new_gray_with_gamma(gamma).encode().unwrap()
    }

    #[test]
    fn srgb_and_broken_profiles_change_nothing() {
        let original = DynamicImage::from(RgbImage::from_pixel(3, 3, Rgb([10, 100, 200])));
        let adobe_rgb = ColorProfile::new_adobe_rgb().encode().unwrap();
        for profile in [
            ColorProfile::new_srgb().encode().unwrap(),
            b"nonsense".to_vec(),
            Vec::new(),
            adobe_rgb[..200].to_vec(),
            // One for other pixels
            grey_profile(1.0),
        ] {
            let mut pixels = original.clone();
            assert!(!to_srgb(&mut pixels, &profile));
            assert_eq!(pixels, original);
        }
        let mut pixels = original;
        assert!(to_srgb(&mut pixels, &adobe_rgb));
    }

    /// What Little CMS makes of the same profiles, by libvips 8.18.7: `icc_transform("srgb", embedded=True)`.
    #[test]
    fn colours_come_out_as_libvips_has_them() {
        const MOST: u8 = 2;
        // Stored; from Adobe RGB, Display P3 and ProPhoto RGB
        let colours: [[[u8; 3]; 4]; 12] = [
            [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
            [[255, 255, 255], [255, 255, 255], [255, 255, 255], [255, 255, 255]],
            [[128, 128, 128], [129, 129, 129], [128, 128, 128], [146, 146, 146]],
            [[30, 30, 30], [24, 24, 24], [30, 30, 30], [40, 40, 40]],
            [[200, 60, 40], [231, 57, 34], [217, 42, 23], [255, 0, 43]],
            [[40, 180, 60], [0, 181, 42], [0, 183, 30], [0, 211, 12]],
            [[50, 70, 200], [33, 68, 205], [44, 71, 208], [0, 92, 223]],
            [[210, 180, 150], [222, 181, 150], [216, 179, 146], [247, 187, 162]],
            [[90, 60, 50], [99, 57, 46], [95, 58, 48], [135, 67, 63]],
            [[120, 140, 90], [111, 141, 86], [115, 141, 84], [132, 162, 99]],
            [[250, 10, 10], [255, 3, 3], [255, 0, 0], [255, 0, 0]],
            [[0, 255, 0], [0, 255, 0], [0, 255, 0], [0, 255, 0]],
        ];
        let profiles = [
            ColorProfile::new_adobe_rgb(),
            ColorProfile::new_display_p3(),
            ColorProfile::new_pro_photo_rgb(),
        ];
        for (number, profile) in (1..).zip(profiles) {
            let profile = profile.encode().unwrap();
            for colour in colours {
                let (stored, expected) = (RgbImage::from_pixel(1, 1, Rgb(colour[0])), colour[number]);
                let deep = DynamicImage::from(DynamicImage::from(stored.clone()).into_rgb16());
                for mut pixels in [stored.into(), deep] {
                    let depth = pixels.color();
                    assert!(to_srgb(&mut pixels, &profile));
                    let made = pixels.into_rgb8().get_pixel(0, 0).0;
                    let is_near =
                        made.iter().zip(expected).all(|(ours, theirs)| ours.abs_diff(theirs) <= MOST);
                    assert!(
                        is_near,
                        "profile {number}, {depth:?}, {:?}: {made:?} for {expected:?}",
                        colour[0]
                    );
                }
            }
        }
    }

    #[test]
    fn pictures_longer_than_a_strip_are_converted_throughout() {
        let side = 200;
        assert!(side * side * 3 > STRIP);
        let side = u32::try_from(side).unwrap();
        let mut pixels = DynamicImage::from(RgbImage::from_pixel(side, side, Rgb([10, 100, 200])));
        assert!(to_srgb(&mut pixels, &ColorProfile::new_adobe_rgb().encode().unwrap()));
        let rgb = pixels.into_rgb8();
        let first = *rgb.get_pixel(0, 0);
        assert_ne!(first, Rgb([10, 100, 200]));
        assert!(rgb.pixels().all(|pixel| *pixel == first));
    }

    #[test]
    fn linear_grey_becomes_lighter() {
        let mut shallow = DynamicImage::from(GrayImage::from_pixel(2, 2, Luma([55])));
        let deep: ImageBuffer<Luma<u16>, Vec<u16>> = ImageBuffer::from_pixel(2, 2, Luma([55 * 257]));
        let mut deep = DynamicImage::from(deep);
        assert!(to_srgb(&mut shallow, &grey_profile(1.0)));
        assert!(to_srgb(&mut deep, &grey_profile(1.0)));
        // (55 / 255)^(1 / 2.4) · 1.055 − 0.055 = 0.502, of 255 is 128
        assert!(shallow.to_luma8().get_pixel(0, 0)[0].abs_diff(128) <= 1);
        assert!(deep.to_luma16().get_pixel(0, 0)[0].abs_diff(128 * 257) <= 300);
    }
}
