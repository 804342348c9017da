//! Pixels to files.

use std::time::Duration;

use image::DynamicImage;
use image::metadata::Orientation;
use jpeg_encoder::{ChromaSubsamplingMethod, ColorType as JpegColour, Encoder as FastJpeg, SamplingFactor};
use mozjpeg_rs::{Encoder as SmallJpeg, Preset};
use oxipng::{BitDepth, ColorType as PngColour, IndexSet, Options, PngError, RawImage, StripChunks};

use super::ImagingError;
use super::metadata::Kept;
use super::png::PICTURE_CHUNKS;
use crate::domain::image::{Format, Variant};

/// Where more costs many bytes and shows nothing.
pub(super) const QUALITY: u8 = 80;

/// A variant's pixels in its format. Without one a picture with transparency becomes PNG, any other JPEG. What is
/// smaller than its picture is made soon rather than as small as can be.
pub(super) fn variant(
    pixels: &DynamicImage,
    variant: &Variant,
    kept: &Kept,
) -> Result<(Format, Vec<u8>), ImagingError> {
    let is_full = variant.width.is_none() && variant.height.is_none();
    let quality = variant.quality.unwrap_or(QUALITY);
    // JPEG has no transparency, and no side of more than 65 535 pixels.
    let fits_jpeg = pixels.width().max(pixels.height()) <= Format::Jpeg.max_side();
    let by_content = || if fits_jpeg && !pixels.color().has_alpha() { Format::Jpeg } else { Format::Png };
    let format = variant.format.unwrap_or_else(by_content);
    let bytes = match format {
        Format::Jpeg if is_full => small_jpeg(pixels, quality)?,
        Format::Jpeg => fast_jpeg(pixels, quality)?,
        Format::Png if is_full => png(pixels, PngEffort::at_full_size(pixels))?,
        Format::Png => png(pixels, PngEffort::Fast)?,
        #[cfg(feature = "webp")]
        Format::WebP => webp(pixels, quality)?,
        #[cfg(feature = "avif")]
        Format::Avif => avif(pixels, variant.quality.unwrap_or(AVIF_QUALITY), kept)?,
        // Refused long before.
        _ => return Err(not_encoded()),
    };
    Ok((format, kept.put(format, bytes, Orientation::NoTransforms)))
}

fn fast_jpeg(pixels: &DynamicImage, quality: u8) -> Result<Vec<u8>, ImagingError> {
    let side = |side: u32| u16::try_from(side).map_err(|_| not_encoded());
    let (width, height) = (side(pixels.width())?, side(pixels.height())?);
    let mut bytes = Vec::new();
    let mut encoder = FastJpeg::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    encoder.set_chroma_subsampling_method(ChromaSubsamplingMethod::Average);
    match pixels {
        DynamicImage::ImageLuma8(image) => encoder.encode(image, width, height, JpegColour::Luma),
        DynamicImage::ImageRgb8(image) => encoder.encode(image, width, height, JpegColour::Rgb),
        _ => encoder.encode(&pixels.to_rgb8(), width, height, JpegColour::Rgb),
    }
    .map_err(|error| failed(&error))?;
    Ok(bytes)
}

/// A JPEG as small as trellis quantization makes it, at ten times the work.
pub(super) fn small_jpeg(pixels: &DynamicImage, quality: u8) -> Result<Vec<u8>, ImagingError> {
    let encoder = SmallJpeg::new(Preset::BaselineBalanced).quality(quality);
    let (width, height) = (pixels.width(), pixels.height());
    match pixels {
        DynamicImage::ImageLuma8(image) => encoder.encode_gray(image, width, height),
        DynamicImage::ImageRgb8(image) => encoder.encode_rgb(image, width, height),
        _ => encoder.encode_rgb(&pixels.to_rgb8(), width, height),
    }
    .map_err(|error| failed(&error))
}

/// How long a PNG may take.
#[derive(Debug, Clone, Copy)]
pub(super) enum PngEffort {
    Fast,
    Small,
}

impl PngEffort {
    /// A large picture gets less for each pixel: `Small` takes about 0.6 s per million of them, and its
    /// timeout does not interrupt a compression that has begun. 16 million take the timeout's ten seconds.
    pub(super) fn at_full_size(pixels: &DynamicImage) -> Self {
        const MOST: u64 = 16_000_000;
        if u64::from(pixels.width()) * u64::from(pixels.height()) > MOST { Self::Fast } else { Self::Small }
    }

    fn options(self) -> Options {
        let preset = match self {
            Self::Fast => 0,
            Self::Small => 1,
        };
        Options {
            // Else it returns its input with all metadata when it finds nothing smaller.
            force: true,
            strip: StripChunks::Keep(IndexSet::from_iter(PICTURE_CHUNKS)),
            // What it has found until then is used.
            timeout: Some(Duration::from_secs(10)),
            ..Options::from_preset(preset)
        }
    }
}

/// A PNG in the smallest colour type that holds all of the pixels.
pub(super) fn png(pixels: &DynamicImage, effort: PngEffort) -> Result<Vec<u8>, ImagingError> {
    let grey = PngColour::Grayscale { transparent_shade: None };
    let rgb = PngColour::RGB { transparent_color: None };
    let (colour, depth, samples) = match pixels {
        DynamicImage::ImageLuma8(image) => (grey, BitDepth::Eight, image.to_vec()),
        DynamicImage::ImageLumaA8(image) => (PngColour::GrayscaleAlpha, BitDepth::Eight, image.to_vec()),
        DynamicImage::ImageRgb8(image) => (rgb, BitDepth::Eight, image.to_vec()),
        DynamicImage::ImageLuma16(image) => (grey, BitDepth::Sixteen, big_endian(image)),
        DynamicImage::ImageLumaA16(image) => {
            (PngColour::GrayscaleAlpha, BitDepth::Sixteen, big_endian(image))
        }
        DynamicImage::ImageRgb16(image) => (rgb, BitDepth::Sixteen, big_endian(image)),
        DynamicImage::ImageRgba16(image) => (PngColour::RGBA, BitDepth::Sixteen, big_endian(image)),
        _ => (PngColour::RGBA, BitDepth::Eight, pixels.to_rgba8().into_raw()),
    };
    RawImage::new(pixels.width(), pixels.height(), colour, depth, samples)
        .and_then(|image| image.create_optimized_png(&effort.options()))
        .map_err(|error| failed(&error))
}

fn big_endian(samples: &[u16]) -> Vec<u8> {
    samples.iter().flat_map(|sample| sample.to_be_bytes()).collect()
}

/// The same PNG in fewer bytes, without its metadata.
pub(super) fn smaller_png(input: &[u8], effort: PngEffort) -> Result<Vec<u8>, PngError> {
    oxipng::optimize_from_memory(input, &effort.options())
}

/// The longest side a WebP bitstream can have.
#[cfg(feature = "webp")]
pub(super) const WEBP_MAX_SIDE: u32 = 16_383;

/// A lossy WebP, of sides up to [`WEBP_MAX_SIDE`].
#[cfg(feature = "webp")]
pub(super) fn webp(pixels: &DynamicImage, quality: u8) -> Result<Vec<u8>, ImagingError> {
    let (width, height) = (pixels.width(), pixels.height());
    let quality = f32::from(quality);
    let encoded = match pixels {
        DynamicImage::ImageRgb8(image) => {
            ::webp::Encoder::from_rgb(image, width, height).encode_simple(false, quality)
        }
        _ if pixels.color().has_alpha() => {
            ::webp::Encoder::from_rgba(&pixels.to_rgba8(), width, height).encode_simple(false, quality)
        }
        _ => ::webp::Encoder::from_rgb(&pixels.to_rgb8(), width, height).encode_simple(false, quality),
    };
    match encoded {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(error) => {
            tracing::warn!(?error, "the encoder gave up");
            Err(not_encoded())
        }
    }
}

/// Looks like a JPEG of [`QUALITY`].
#[cfg(feature = "avif")]
const AVIF_QUALITY: u8 = 65;
/// The quickest: one that is half as quick again saves a sixth of the bytes and takes six times as long.
#[cfg(feature = "avif")]
const AVIF_SPEED: u8 = 10;

#[cfg(feature = "avif")]
fn avif(pixels: &DynamicImage, quality: u8, kept: &Kept) -> Result<Vec<u8>, ImagingError> {
    use ravif::{Encoder, Img, RGB8, RGBA8};

    let (width, height) = (pixels.width() as usize, pixels.height() as usize);
    let mut encoder = Encoder::new()
        .with_quality(f32::from(quality.clamp(1, 100)))
        .with_speed(AVIF_SPEED)
        // The pool's own thread.
        .with_num_threads(Some(1));
    if let Some(block) = kept.block(Orientation::NoTransforms) {
        encoder = encoder.with_exif(block);
    }
    let encoded = if pixels.color().has_alpha() {
        let samples: Vec<RGBA8> = pixels.to_rgba8().pixels().map(|pixel| pixel.0.into()).collect();
        encoder.encode_rgba(Img::new(&samples, width, height))
    } else {
        let samples: Vec<RGB8> = pixels.to_rgb8().pixels().map(|pixel| pixel.0.into()).collect();
        encoder.encode_rgb(Img::new(&samples, width, height))
    };
    encoded.map(|encoded| encoded.avif_file).map_err(|error| failed(&error))
}

fn failed(error: &dyn std::error::Error) -> ImagingError {
    tracing::warn!(error = %error, "the encoder gave up");
    not_encoded()
}

fn not_encoded() -> ImagingError {
    ImagingError::undecodable("it could not be encoded")
}
