//! CMYK, which some JPEGs hold, to sRGB.

use moxcms::{CmsError, ColorProfile, DataColorSpace, Layout, TransformOptions};

/// Turns stored CMYK into amounts of ink, 255 being full. Adobe's programs, and so nearly all there are,
/// store how much of the paper stays white instead.
pub(super) fn ink_from_cmyk(samples: &mut [u8], inverted: bool) {
    if inverted {
        samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
    }
}

/// Turns YCbCr + K, which only Adobe's programs store, into amounts of ink.
///
/// The first three are the RGB of ITU-R BT.601 (JFIF, section 2) that 255 minus the inverted inks make, so
/// inverted twice, so the inks; K is inverted once.
pub(super) fn ink_from_ycck(samples: &mut [u8]) {
    for pixel in samples.as_chunks_mut::<4>().0 {
        let [luma, cb, cr, white] = pixel.map(i32::from);
        let (luma, cb, cr) = (luma << 16, cb - 128, cr - 128);
        // 1.402, 0.344136, 0.714136 and 1.772 times 2^16
        *pixel = [
            rounded(luma + 91_881 * cr),
            rounded(luma - 22_553 * cb - 46_802 * cr),
            rounded(luma + 116_130 * cb),
            rounded((255 - white) << 16),
        ];
    }
}

/// A sample from its 2^16-fold.
fn rounded(scaled: i32) -> u8 {
    u8::try_from(((scaled + (1 << 15)) >> 16).clamp(0, 255)).unwrap_or(u8::MAX)
}

/// Amounts of ink, 255 being full, to sRGB.
pub(super) fn ink_to_rgb(ink: &[u8], profile: Option<&[u8]>) -> Vec<u8> {
    let mut rgb = vec![0; ink.len() / 4 * 3];
    if profile.is_none_or(|profile| convert_by_profile(ink, &mut rgb, profile).is_err()) {
        convert_naively(ink, &mut rgb);
    }
    rgb
}

fn convert_by_profile(ink: &[u8], rgb: &mut [u8], profile: &[u8]) -> Result<(), CmsError> {
    let profile = ColorProfile::new_from_slice(profile)?;
    if profile.color_space != DataColorSpace::Cmyk {
        return Err(CmsError::UnsupportedProfileConnection);
    }
    let srgb = ColorProfile::new_srgb();
    // Four samples a pixel, whatever they stand for.
    let transform =
        profile.create_transform_8bit(Layout::Rgba, &srgb, Layout::Rgb, TransformOptions::default())?;
    transform.transform(ink, rgb)
}

/// Light that the ink and the black over it let through.
fn convert_naively(ink: &[u8], rgb: &mut [u8]) {
    for (ink, rgb) in ink.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        let [c, m, y, k] = ink.map(|amount| 255 - amount);
        *rgb = [c, m, y].map(|light| multiply(light, k));
    }
}

/// a · b / 255, rounded.
fn multiply(a: u8, b: u8) -> u8 {
    let product = (u16::from(a) * u16::from(b) + 127) / 255;
    u8::try_from(product).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ink_takes_light_away() {
        let ink = [0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 255, 0, 255, 255, 0, 0, 128, 0, 128];
        let rgb = ink_to_rgb(&ink, None);
        assert_eq!(rgb, [255, 255, 255, 0, 255, 255, 0, 0, 0, 255, 0, 0, 127, 63, 127]);
        assert_eq!(ink_to_rgb(&ink, Some(b"no profile")), rgb);
    }

    #[test]
    fn adobe_stores_what_stays_white() {
        let mut stored = [255, 0, 255, 200];
        ink_from_cmyk(&mut stored, true);
        assert_eq!(stored, [0, 255, 0, 55]);
        ink_from_cmyk(&mut stored, false);
        assert_eq!(stored, [0, 255, 0, 55]);
    }

    #[test]
    fn ycck_is_inverted_rgb_and_black() {
        // White paper; full black; the YCbCr of pure red, so full cyan ink
        let mut stored = [0, 128, 128, 255, 0, 128, 128, 0, 76, 85, 255, 255];
        ink_from_ycck(&mut stored);
        assert_eq!(stored[..8], [0, 0, 0, 0, 0, 0, 0, 255]);
        let [c, m, y, k] = *stored.last_chunk().unwrap();
        assert!(c >= 253 && m <= 2 && y <= 2 && k == 0, "{c} {m} {y} {k}");
    }
}
