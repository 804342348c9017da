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

    /// A profile of two nodes for each ink: what each mixture of full inks looks like, as L*a*b*, and nothing between.
    fn profile() -> Vec<u8> {
        let mut nodes = Vec::new();
        for mixture in 0..16 {
            let [c, m, y, k] = [8, 4, 2, 1].map(|ink| i32::from(mixture & ink != 0));
            let l = (100 - 30 * c - 35 * m - 6 * y) * if k == 1 { 15 } else { 100 };
            let chroma = [-30 * c + 70 * m - 4 * y, -45 * c - 5 * m + 85 * y];
            let [a, b] = chroma.map(|value| value * if k == 1 { 10 } else { 100 });
            // Hundredths so far; a lut16Type has 652.8 for each L*, 256 for each a* and b*, and these from -128 (ICC.1:2001-04)
            for value in [l * 6528 / 1000, (a + 12_800) * 256 / 100, (b + 12_800) * 256 / 100] {
                nodes.push(u16::try_from(value).unwrap());
            }
        }
        let linear = [0, 0xFFFF].repeat(4);
        let tables = [[2, 2].as_slice(), &linear, &nodes, &linear[..6]].concat();
        let identity = [1_u32 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 16].map(u32::to_be_bytes);
        let lut = [b"mft2\0\0\0\0\x04\x03\x02\0", identity.as_flattened(), &big_endian(&tables)].concat();
        let white = [63_190_u32, 65_536, 54_061].map(u32::to_be_bytes);
        let white = white.as_flattened();
        let mut header = [0; 128];
        for (at, field) in
            [(8, [2, 0x40, 0, 0].as_slice()), (12, b"prtrCMYKLab "), (36, b"acsp"), (68, white)]
        {
            header[at..at + field.len()].copy_from_slice(field);
        }
        let tags = [
            (b"desc", [b"desc\0\0\0\0\0\0\0\x05CMYK".as_slice(), &[0; 79]].concat()),
            (b"cprt", b"text\0\0\0\0CC0\0".to_vec()),
            (b"wtpt", [b"XYZ \0\0\0\0", white].concat()),
            (b"A2B0", lut),
        ];
        let (mut table, mut data) = (4_u32.to_be_bytes().to_vec(), Vec::new());
        for (name, tag) in tags {
            let place = 128 + 4 + 4 * 12 + data.len();
            let numbers = [place, tag.len()].map(|number| u32::try_from(number).unwrap().to_be_bytes());
            table.extend([name.as_slice(), numbers.as_flattened()].concat());
            data.extend(tag);
            data.resize(data.len().next_multiple_of(4), 0);
        }
        let length = u32::try_from(128 + table.len() + data.len()).unwrap();
        header[..4].copy_from_slice(&length.to_be_bytes());
        [header.as_slice(), &table, &data].concat()
    }

    fn big_endian(numbers: &[u16]) -> Vec<u8> {
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// What Little CMS makes of the same profile, by libvips 8.18.7: `icc_transform("srgb", embedded=True)`. Not of mixtures
    /// of several inks in part, between which nodes as far apart as these leave room for opinions.
    #[test]
    fn inks_come_out_as_libvips_has_them() {
        const MOST: u8 = 2;
        let expected: [([u8; 4], [u8; 3]); 11] = [
            ([0, 0, 0, 0], [255, 255, 255]),
            ([255, 0, 0, 0], [0, 189, 252]),
            ([0, 255, 0, 0], [255, 92, 170]),
            ([0, 0, 255, 0], [255, 238, 47]),
            ([0, 0, 0, 255], [38, 38, 38]),
            ([255, 255, 0, 0], [109, 56, 164]),
            ([255, 0, 255, 0], [107, 171, 79]),
            ([0, 255, 255, 0], [253, 76, 0]),
            ([128, 0, 0, 0], [158, 222, 254]),
            ([0, 0, 0, 128], [138, 138, 138]),
            ([64, 64, 64, 0], [226, 198, 188]),
        ];
        let profile = profile();
        for (ink, expected) in expected {
            let made = ink_to_rgb(&ink, Some(&profile));
            let is_near = made.iter().zip(expected).all(|(ours, theirs)| ours.abs_diff(theirs) <= MOST);
            assert!(is_near, "{ink:?}: {made:?} for {expected:?}");
        }
    }

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
