//! JPEG decoded at a half, a quarter or an eighth of its size, by libjpeg-turbo.
//!
//! The inverse DCT of a block makes 4×4, 2×2 or 1×1 pixels instead of 8×8, and all that comes after it has as many
//! fewer to work on.

use image::{DynamicImage, GrayImage, RgbImage};
use turbojpeg::{Decompressor, Image, PixelFormat, ScalingFactor};

use super::container::Header;
use super::jpeg::MAX_SCANS;
use super::resize;
use crate::domain::image::{Format, Variant};

/// The divisor of both sides that leaves enough of the picture for each of the variants; 1 is all of it.
pub(super) fn divisor(header: &Header, variants: &[Variant]) -> u32 {
    if header.format != Format::Jpeg || header.truncated {
        return 1;
    }
    let (width, height) = header.displayed_size();
    let is_enough = |divisor: u32| {
        let part = |side: f64| side / f64::from(divisor);
        variants.iter().all(|variant| {
            let geometry = variant.geometry(width, height);
            let (of_width, of_height) = geometry.crop.unwrap_or((width.into(), height.into()));
            resize::is_enough((part(of_width), part(of_height)), geometry.scaled)
        })
    };
    [8, 4, 2].into_iter().find(|divisor| is_enough(*divisor)).unwrap_or(1)
}

/// The picture as it is stored, each side divided and rounded up. Nothing where libjpeg-turbo finds fault with it:
/// what is a fault is for one decoder alone to say, the one that reads whole pictures.
pub(super) fn decode(input: &[u8], header: &Header, divisor: u32, is_grey: bool) -> Option<DynamicImage> {
    let format = if is_grey { PixelFormat::GRAY } else { PixelFormat::RGB };
    let factor = ScalingFactor::new(1, divisor as usize);
    let mut decompressor = Decompressor::new().ok()?;
    decompressor.set_scan_limit(u32::try_from(MAX_SCANS).ok()?).ok()?;
    let found = decompressor.read_header(input).ok()?;
    if (found.width, found.height) != (header.width as usize, header.height as usize) {
        return None;
    }
    decompressor.set_scaling_factor(factor).ok()?;
    let (width, height) = (factor.scale(found.width), factor.scale(found.height));
    let pitch = width * format.size();
    let mut image = Image { pixels: vec![0; pitch * height], width, height, pitch, format };
    if let Err(error) = decompressor.decompress(input, image.as_deref_mut()) {
        tracing::debug!(error = %error, "not decoded at reduced size");
        return None;
    }
    let (width, height) = (u32::try_from(width).ok()?, u32::try_from(height).ok()?);
    if is_grey {
        GrayImage::from_raw(width, height, image.pixels).map(Into::into)
    } else {
        RgbImage::from_raw(width, height, image.pixels).map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use image::GrayImage;

    use super::*;
    use crate::domain::image::{Fit, Handling};
    use crate::imaging::container;
    use crate::imaging::fixtures::{LIMITS, difference, jpeg, jpeg_exif, made, picture, with_segments};

    fn header(bytes: &[u8]) -> Header {
        container::walk(&mut std::io::Cursor::new(bytes), &LIMITS, false, &mut |_| ()).unwrap()
    }

    fn wide(width: u32) -> Variant {
        Variant { name: "wide".to_owned(), width: Some(width), ..Variant::default() }
    }

    #[test]
    fn twice_of_what_is_wanted_is_left() {
        let header = header(&jpeg(&picture(800, 400), 80));
        let divisor = |variants: &[Variant]| divisor(&header, variants);
        assert_eq!(divisor(&[wide(50)]), 8);
        assert_eq!(divisor(&[wide(51)]), 4);
        assert_eq!(divisor(&[wide(50), wide(200)]), 2);
        assert_eq!(divisor(&[wide(201)]), 1);
        assert_eq!(divisor(&Variant::defaults()), 1);
        // The part that is left is 400 pixels wide.
        let cover = Variant { height: Some(50), fit: Fit::Cover, ..wide(50) };
        assert_eq!(divisor(&[cover]), 4);
    }

    #[test]
    fn sides_are_rounded_up_and_grey_stays_grey() {
        let bytes = jpeg(&picture(803, 401), 80);
        let pixels = decode(&bytes, &header(&bytes), 8, false).unwrap();
        assert_eq!((pixels.width(), pixels.height()), (101, 51));
        let mut bytes = Vec::new();
        let grey = GrayImage::from_pixel(64, 32, [99].into());
        let encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
        encoder.encode(&grey, 64, 32, jpeg_encoder::ColorType::Luma).unwrap();
        let pixels = decode(&bytes, &header(&bytes), 2, true).unwrap();
        assert!(
            matches!(&pixels, DynamicImage::ImageLuma8(grey) if grey.get_pixel(9, 9)[0].abs_diff(99) < 2)
        );
    }

    #[test]
    fn damage_is_left_to_the_decoder_of_whole_pictures() {
        let bytes = jpeg(&picture(800, 400), 80);
        let header = header(&bytes);
        assert!(decode(&bytes, &header, 8, false).is_some());
        assert!(decode(&bytes[..bytes.len() / 2], &header, 8, false).is_none());
    }

    #[test]
    fn of_fewer_pixels_the_same_picture_is_made() {
        for orientation in 1..=8 {
            let bytes = with_segments(jpeg(&picture(803, 401), 90), &[(0xE1, &jpeg_exif(orientation))]);
            let of = |variants: &[Variant]| {
                let made = made(&bytes, variants, &Handling::default()).unwrap();
                let made = made.iter().find(|artifact| artifact.name == "wide").unwrap();
                image::load_from_memory(&made.bytes).unwrap().to_rgb8()
            };
            let small = Variant { format: Some(Format::Png), ..wide(40) };
            // Besides this one all pixels are needed.
            let whole = Variant { name: "whole".to_owned(), ..Variant::default() };
            let (_, mean) = difference(&of(std::slice::from_ref(&small)), &of(&[small, whole]));
            assert!(mean < 1.0, "orientation {orientation}: {mean}");
        }
    }
}
