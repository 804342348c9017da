//! What artifacts keep of the EXIF that came with their picture.

use std::io::Cursor;
use std::ops::Range;

use exif::experimental::Writer;
use exif::{Context, Field, In, Reader, Tag, Value};
use image::metadata::Orientation;
use img_parts::{DynImage, ImageEXIF as _};

use super::container::{EXIF_PREFIX, Header};
use crate::domain::image::{Format, MetadataPolicy};

/// What fits into a segment of a JPEG.
const MAX_BYTES: usize = 0xFFFF - 8;

/// Who made it, and whose it is.
const COPYRIGHT: [Tag; 2] = [Tag::Artist, Tag::Copyright];

/// What was said of the file that came in and is not true of one made of it: how it is turned, its size, how its pixels
/// and colours are stored, where its parts are, and a second copy of some of that.
const STALE: [Tag; 32] = [
    Tag::Orientation,
    Tag::ImageWidth,
    Tag::ImageLength,
    Tag::PixelXDimension,
    Tag::PixelYDimension,
    Tag::BitsPerSample,
    Tag::Compression,
    Tag::PhotometricInterpretation,
    Tag::SamplesPerPixel,
    Tag::PlanarConfiguration,
    Tag::YCbCrSubSampling,
    Tag::YCbCrPositioning,
    Tag::YCbCrCoefficients,
    Tag::ReferenceBlackWhite,
    Tag::TransferFunction,
    Tag::WhitePoint,
    Tag::PrimaryChromaticities,
    Tag::Gamma,
    Tag::ComponentsConfiguration,
    Tag::CompressedBitsPerPixel,
    Tag::StripOffsets,
    Tag::StripByteCounts,
    Tag::RowsPerStrip,
    Tag::TileOffsets,
    Tag::TileByteCounts,
    Tag::JPEGInterchangeFormat,
    Tag::JPEGInterchangeFormatLength,
    Tag(Context::Tiff, 0x014A), // further directories, by their places
    Tag(Context::Tiff, 0x02BC), // XMP
    Tag(Context::Tiff, 0x83BB), // IPTC
    Tag(Context::Tiff, 0x8649), // Photoshop
    Tag(Context::Tiff, 0x8773), // a colour profile
];

/// Fields that stay.
#[derive(Default)]
pub(super) struct Kept {
    fields: Vec<Field>,
    little_endian: bool,
}

impl Kept {
    /// Chooses from the EXIF that lies in this part of the input. What cannot be read of it is left out.
    pub(super) fn read(
        input: &[u8],
        header: &Header,
        part: Option<Range<u64>>,
        policy: MetadataPolicy,
    ) -> Self {
        let (Some(part), MetadataPolicy::Copyright | MetadataPolicy::All) = (part, policy) else {
            return Self::default();
        };
        let Some(block) = block_in(input, header.format, part) else { return Self::default() };
        let read = Reader::new().continue_on_error(true).read_raw(block.to_vec());
        let exif = match read.or_else(|error| error.distill_partial_result(|_| ())) {
            Ok(exif) => exif,
            Err(error) => {
                tracing::debug!(%error, "EXIF that cannot be read");
                return Self::default();
            }
        };
        let is_kept = |field: &&Field| {
            let by_policy = match policy {
                MetadataPolicy::None => false,
                MetadataPolicy::Copyright => COPYRIGHT.contains(&field.tag),
                MetadataPolicy::All => !STALE.contains(&field.tag),
            };
            // The second directory is that of a thumbnail.
            by_policy && field.ifd_num == In::PRIMARY && !matches!(field.value, Value::Unknown(..))
        };
        let mut fields: Vec<_> = exif.fields().filter(is_kept).cloned().collect();
        for field in &mut fields {
            if field.tag == Tag::ColorSpace {
                // sRGB, which is what it has become.
                field.value = Value::Short(vec![1]);
            }
        }
        Self { fields, little_endian: exif.little_endian() }
    }

    /// The block, without what precedes it in a JPEG; `None` when there is nothing to say. An orientation is for
    /// pictures that stay as they are stored.
    pub(super) fn block(&self, orientation: Orientation) -> Option<Vec<u8>> {
        let written = self.written(orientation, |_| true).filter(|block| block.len() <= MAX_BYTES);
        // A maker's own notes may be as long as all else.
        let written = written.or_else(|| self.written(orientation, |tag| tag != Tag::MakerNote));
        written.filter(|block| block.len() <= MAX_BYTES)
    }

    fn written(&self, orientation: Orientation, is_wanted: impl Fn(Tag) -> bool) -> Option<Vec<u8>> {
        let turned = Field {
            tag: Tag::Orientation,
            ifd_num: In::PRIMARY,
            value: Value::Short(vec![orientation.to_exif().into()]),
        };
        let mut writer = Writer::new();
        let turned = (orientation != Orientation::NoTransforms).then_some(&turned);
        let fields = self.fields.iter().filter(|field| is_wanted(field.tag));
        fields.chain(turned).for_each(|field| writer.push_field(field));
        let mut block = Cursor::new(Vec::new());
        // Without any field it refuses.
        writer.write(&mut block, self.little_endian).ok()?;
        Some(block.into_inner())
    }

    /// How many bytes it adds to a file, at most.
    pub(super) fn len(&self) -> usize {
        /// What precedes it, and what a WebP needs to have it.
        const FRAME: usize = 64;
        self.block(Orientation::NoTransforms).map_or(0, |block| block.len() + FRAME)
    }

    /// The file with what is kept. An AVIF got it when it was made.
    pub(super) fn put(&self, format: Format, bytes: Vec<u8>, orientation: Orientation) -> Vec<u8> {
        if self.fields.is_empty() || matches!(format, Format::Gif | Format::Avif) {
            return bytes;
        }
        let Some(block) = self.block(orientation) else { return bytes };
        let bytes = img_parts::Bytes::from(bytes);
        match DynImage::from_bytes(bytes.clone()) {
            Ok(Some(mut file)) => {
                file.set_exif(Some(block.into()));
                file.encoder().bytes().into()
            }
            // None of ours is read wrong; and if one were, it is right without.
            _ => bytes.into(),
        }
    }
}

/// The EXIF block in a segment or chunk that holds it.
fn block_in(input: &[u8], format: Format, part: Range<u64>) -> Option<&[u8]> {
    let part = input.get(usize::try_from(part.start).ok()?..usize::try_from(part.end).ok()?)?;
    let block = match format {
        // Marker and length
        Format::Jpeg => part.get(4..)?,
        // Length and name, and a checksum behind
        Format::Png => part.get(8..part.len().checked_sub(4)?)?,
        // Name and length, and perhaps a byte of padding behind
        Format::WebP => {
            let length = u32::from_le_bytes(part.get(4..8)?.try_into().ok()?);
            part.get(8..8 + usize::try_from(length).ok()?)?
        }
        Format::Gif | Format::Avif => return None,
    };
    let block = block.strip_prefix(EXIF_PREFIX).unwrap_or(block);
    (block.len() <= MAX_BYTES).then_some(block)
}
