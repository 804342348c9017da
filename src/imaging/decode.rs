//! Pixels: decoded, in sRGB, and the right way up.

use std::io::{BufRead, Cursor, Seek};

use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GrayAlphaImage, GrayImage, ImageBuffer, ImageDecoder, ImageError, RgbImage,
    RgbaImage,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::container::Header;
#[cfg(feature = "turbojpeg")]
use super::reduced;
use super::resize::Scale;
use super::{ImagingError, cmyk, colour, jpeg};
use crate::domain::image::{Format, Limits, Variant};

/// The most that a decoded pixel takes: four samples of 16 bits.
const BYTES_PER_PIXEL: u64 = 8;

/// A picture as it is to be displayed: oriented, in sRGB, with an alpha channel only if it is used.
pub(super) struct Picture {
    pub(super) pixels: DynamicImage,
    /// Width and height of the picture.
    pub(super) size: (u32, u32),
    /// How much of it there is: less where no variant needs all of it.
    pub(super) scale: Scale,
    /// Whether these are other colours than those that are stored.
    pub(super) converted: bool,
    /// Whether these pixels lie elsewhere than those that are stored.
    pub(super) turned: bool,
}

/// Decodes the picture, or the first frame of an animation, as far as `variants` need its pixels.
pub(super) fn decode(
    input: &[u8],
    header: &Header,
    variants: &[Variant],
    limits: &Limits,
) -> Result<Picture, ImagingError> {
    let cursor = Cursor::new(input);
    let mut divisor = 1;
    let (pixels, converted) = match header.format {
        Format::Jpeg => {
            let (found, divided_by) = decode_jpeg(input, header, variants)?;
            divisor = divided_by;
            found
        }
        Format::Png => {
            let mut allowed = image::Limits::no_limits();
            // Compressed profiles and texts expand too.
            allowed.max_alloc = Some(limits.max_pixels.saturating_mul(BYTES_PER_PIXEL));
            let decoder = PngDecoder::with_limits(cursor, allowed);
            if header.truncated { decode_rows(decoder, header)? } else { decode_other(decoder, header)? }
        }
        Format::WebP => decode_other(WebPDecoder::new(cursor), header)?,
        Format::Gif => decode_other(GifDecoder::new(cursor), header)?,
        Format::Avif => return Err(ImagingError::Unsupported { detected: Some("AVIF") }),
    };
    let mut pixels = without_idle_alpha(pixels);
    pixels.apply_orientation(header.orientation);
    let scale = Scale { divisor, origin: origin(&pixels, header, divisor) };
    let turned = header.orientation != Orientation::NoTransforms;
    Ok(Picture { pixels, size: header.displayed_size(), scale, converted, turned })
}

/// Where the picture begins in its pixels: at the first one, but where it was turned so that the last ones, of which
/// only a part is the picture, come first.
fn origin(pixels: &DynamicImage, header: &Header, divisor: u32) -> (f64, f64) {
    use Orientation::{
        FlipHorizontal, FlipVertical, NoTransforms, Rotate90, Rotate90FlipH, Rotate180, Rotate270,
        Rotate270FlipH,
    };
    let (width, height) = header.displayed_size();
    let added = |pixels: u32, side: u32| f64::from(pixels) - f64::from(side) / f64::from(divisor);
    let (x, y) = (added(pixels.width(), width), added(pixels.height(), height));
    match header.orientation {
        NoTransforms | Rotate90FlipH => (0.0, 0.0),
        FlipHorizontal | Rotate90 => (x, 0.0),
        FlipVertical | Rotate270 => (0.0, y),
        Rotate180 | Rotate270FlipH => (x, y),
    }
}

fn decode_other<D: ImageDecoder>(
    decoder: Result<D, ImageError>,
    header: &Header,
) -> Result<(DynamicImage, bool), ImagingError> {
    let mut decoder = decoder.map_err(|error| undecodable(header, &error))?;
    // The decoder allocates by its own reading of the header, without a limit.
    if decoder.dimensions() != (header.width, header.height) {
        return Err(contradictory());
    }
    let profile = decoder.icc_profile().unwrap_or_default();
    let mut pixels = DynamicImage::from_decoder(decoder).map_err(|error| undecodable(header, &error))?;
    let converted = profile.is_some_and(|profile| colour::to_srgb(&mut pixels, &profile));
    Ok((pixels, converted))
}

/// The rows of a PNG that are there; the rest is black, or transparent where the picture can be.
fn decode_rows<R: BufRead + Seek>(
    decoder: Result<PngDecoder<R>, ImageError>,
    header: &Header,
) -> Result<(DynamicImage, bool), ImagingError> {
    let mut decoder = decoder.map_err(|error| undecodable(header, &error))?;
    if decoder.dimensions() != (header.width, header.height) {
        return Err(contradictory());
    }
    let profile = decoder.icc_profile().unwrap_or_default();
    let colour = decoder.color_type();
    let mut rows = vec![0; usize::try_from(decoder.total_bytes()).map_err(|_| contradictory())?];
    // It ends where the file does, and puts the bytes of 16-bit samples into the machine's order only afterwards.
    let is_whole = decoder.read_image(&mut rows).is_ok();
    let samples = || -> Vec<u16> {
        let order = if is_whole { u16::from_ne_bytes } else { u16::from_be_bytes };
        rows.as_chunks::<2>().0.iter().map(|bytes| order(*bytes)).collect()
    };
    let (width, height) = (header.width, header.height);
    let pixels: Option<DynamicImage> = match colour {
        ColorType::L8 => GrayImage::from_raw(width, height, rows).map(Into::into),
        ColorType::La8 => GrayAlphaImage::from_raw(width, height, rows).map(Into::into),
        ColorType::Rgb8 => RgbImage::from_raw(width, height, rows).map(Into::into),
        ColorType::Rgba8 => RgbaImage::from_raw(width, height, rows).map(Into::into),
        ColorType::L16 => ImageBuffer::from_raw(width, height, samples()).map(DynamicImage::ImageLuma16),
        ColorType::La16 => ImageBuffer::from_raw(width, height, samples()).map(DynamicImage::ImageLumaA16),
        ColorType::Rgb16 => ImageBuffer::from_raw(width, height, samples()).map(DynamicImage::ImageRgb16),
        ColorType::Rgba16 => ImageBuffer::from_raw(width, height, samples()).map(DynamicImage::ImageRgba16),
        _ => None,
    };
    let mut pixels = pixels.ok_or_else(contradictory)?;
    let converted = profile.is_some_and(|profile| colour::to_srgb(&mut pixels, &profile));
    Ok((pixels, converted))
}

/// JPEG straight from its decoder, as only there CMYK comes out as stored; and what its sides are divided by.
fn decode_jpeg(
    input: &[u8],
    header: &Header,
    variants: &[Variant],
) -> Result<((DynamicImage, bool), u32), ImagingError> {
    let failed = |error: DecodeErrors| undecodable(header, &error);
    let options = DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(jpeg::MAX_SCANS);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(input), options);
    decoder.decode_headers().map_err(failed)?;
    let size = decoder.dimensions().map(|(width, height)| (u32::try_from(width), u32::try_from(height)));
    if size != Some((Ok(header.width), Ok(header.height))) {
        return Err(contradictory());
    }
    let stored = decoder.input_colorspace().unwrap_or(ColorSpace::YCbCr);
    let wanted = match stored {
        ColorSpace::Luma | ColorSpace::CMYK | ColorSpace::YCCK => stored,
        _ => ColorSpace::RGB,
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let profile = decoder.icc_profile();
    let to_srgb = |mut pixels: DynamicImage| {
        let converted = profile.as_ref().is_some_and(|profile| colour::to_srgb(&mut pixels, profile));
        (pixels, converted)
    };
    if let Some((pixels, divisor)) = reduced(input, header, variants, stored) {
        return Ok((to_srgb(pixels), divisor));
    }
    let mut samples = decoder.decode().map_err(failed)?;
    if matches!(wanted, ColorSpace::CMYK | ColorSpace::YCCK) {
        if wanted == ColorSpace::YCCK {
            cmyk::ink_from_ycck(&mut samples);
        } else {
            cmyk::ink_from_cmyk(&mut samples, header.adobe);
        }
        return Ok(((rgb_image(header, cmyk::ink_to_rgb(&samples, profile.as_deref()))?, true), 1));
    }
    let pixels = if wanted == ColorSpace::Luma {
        GrayImage::from_raw(header.width, header.height, samples).ok_or_else(contradictory)?.into()
    } else {
        rgb_image(header, samples)?
    };
    Ok((to_srgb(pixels), 1))
}

/// The picture with fewer pixels, where no variant needs more. Whether samples are RGB or
/// CMYK of which kind, one decoder alone says.
#[cfg(feature = "turbojpeg")]
fn reduced(
    input: &[u8],
    header: &Header,
    variants: &[Variant],
    stored: ColorSpace,
) -> Option<(DynamicImage, u32)> {
    let divisor = reduced::divisor(header, variants);
    if divisor == 1 || !matches!(stored, ColorSpace::Luma | ColorSpace::YCbCr) {
        return None;
    }
    Some((reduced::decode(input, header, divisor, stored == ColorSpace::Luma)?, divisor))
}

/// Without libjpeg-turbo all of it is decoded: the decoders in Rust that can leave pixels out take as long for an
/// eighth of a picture as this one takes for all of it.
#[cfg(not(feature = "turbojpeg"))]
fn reduced(_: &[u8], _: &Header, _: &[Variant], _: ColorSpace) -> Option<(DynamicImage, u32)> {
    None
}

fn rgb_image(header: &Header, samples: Vec<u8>) -> Result<DynamicImage, ImagingError> {
    let image = RgbImage::from_raw(header.width, header.height, samples).ok_or_else(contradictory)?;
    Ok(image.into())
}

/// Drops an alpha channel that is opaque everywhere.
fn without_idle_alpha(pixels: DynamicImage) -> DynamicImage {
    let idle = match &pixels {
        DynamicImage::ImageLumaA8(image) => image.pixels().all(|pixel| pixel[1] == u8::MAX),
        DynamicImage::ImageRgba8(image) => image.pixels().all(|pixel| pixel[3] == u8::MAX),
        DynamicImage::ImageLumaA16(image) => image.pixels().all(|pixel| pixel[1] == u16::MAX),
        DynamicImage::ImageRgba16(image) => image.pixels().all(|pixel| pixel[3] == u16::MAX),
        _ => false,
    };
    match pixels {
        DynamicImage::ImageLumaA8(_) if idle => pixels.into_luma8().into(),
        DynamicImage::ImageRgba8(_) if idle => pixels.into_rgb8().into(),
        DynamicImage::ImageLumaA16(_) if idle => pixels.into_luma16().into(),
        DynamicImage::ImageRgba16(_) if idle => pixels.into_rgb16().into(),
        _ => pixels,
    }
}

fn contradictory() -> ImagingError {
    ImagingError::undecodable("its header contradicts its picture data")
}

/// The codec's own words are for the log: they speak of its insides.
fn undecodable(header: &Header, error: &dyn std::error::Error) -> ImagingError {
    tracing::debug!(format = ?header.format, error = %error, "the decoder gave up");
    ImagingError::undecodable("its picture data is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 803 × 401 at an eighth: 100.375 × 50.125 of 101 × 51.
    #[test]
    fn what_rounding_added_lies_where_the_last_pixels_have_come_to_lie() {
        let (long, short) = (0.625, 0.875);
        let origins = [
            (0.0, 0.0),
            (long, 0.0),
            (long, short),
            (0.0, short),
            (0.0, 0.0),
            (short, 0.0),
            (short, long),
            (0.0, long),
        ];
        for (exif, expected) in (1..=8).zip(origins) {
            let orientation = Orientation::from_exif(exif).unwrap();
            let header = Header { orientation, ..Header::new(Format::Jpeg, (803, 401)) };
            let mut pixels = DynamicImage::new_luma8(101, 51);
            pixels.apply_orientation(orientation);
            assert_eq!(origin(&pixels, &header, 8), expected, "{exif}");
        }
    }
}
