//! What a picture takes to work on, and the budget that all of the work shares.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ImagingError, Probe, SizeLimit};
use crate::domain::image::{Format, Variant, Watermarks};

const MIB: u64 = 1 << 20;

/// What any picture takes besides its pixels: colour transforms, tables of the compressors, the allocator's slack.
const FIXED: u64 = 16 * MIB;
/// What rav1e takes for a pixel: the picture in 16 bits several times over, and its block decisions; an estimate.
const AVIF: u64 = 128;

/// How pixels are stored, as far as it decides what decoding them takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// Samples that a decoded pixel has at the most, an alpha channel included.
    pub samples: u8,
    /// Bytes that each of them has, decoded.
    pub sample_bytes: u8,
    /// Progressive JPEG: all coefficients are held until the last scan is read.
    pub progressive: bool,
}

impl Default for Coding {
    /// What most formats come to: four samples of 8 bits.
    fn default() -> Self {
        Self { samples: 4, sample_bytes: 1, progressive: false }
    }
}

/// The bytes that making `variants` of a picture takes at the most, `input` of which are the file's. Of `watermarks`
/// those count that they name.
///
/// Per pixel, with `s` samples of `b` bytes; the largest of what is held at one time counts:
///
/// | while | held |
/// |---|---|
/// | decoding JPEG | `s` decoded, and as many again when it is turned or CMYK becomes RGB; progressive: `2·s` of coefficients |
/// | decoding PNG, GIF, WebP | `s·b` decoded, twice: turned, or without its idle alpha; WebP and GIF hold a frame and its planes, too |
/// | resizing | `s·b` decoded, `s` at 8 bits, `s` for the levels and what lies between two passes, as much again premultiplied where there is alpha, and the levels that stay |
/// | trellis-encoding the original | `s` decoded and `6·s`, as measured: 18 to 20 for RGB, its pixels included |
/// | oxipng | `s·b` decoded and six times that: raw lines, a reduced copy, the filtered lines, what is compressed |
/// | libwebp | as measured: 34, and 64 with alpha; it keeps all tokens of the picture until it knows their statistics |
/// | drawing a watermark | the artifact once more, in colour, and then what encodes it; before that the watermark at its size, twice |
///
/// Besides, the file and what is made of it: three times its bytes; and each watermark, of which two copies are scaled down. `tests/it/imaging.rs` measures noise of each kind,
/// which is the worst there is, and prints what it took.
pub(super) fn needed(probe: &Probe, input: u64, variants: &[Variant], watermarks: &Watermarks) -> u64 {
    // Codecs work in blocks of up to 32 pixels a side.
    let padded = |side: u32| u64::from(side).next_multiple_of(32);
    let pixels = padded(probe.width) * padded(probe.height);
    let Coding { samples, sample_bytes, progressive } = probe.coding;
    let (samples, deep) = (u64::from(samples), u64::from(sample_bytes));
    let decoded = samples * deep;
    let decoding = match probe.format {
        Format::Jpeg if progressive => 3 * samples,
        Format::Jpeg => 2 * samples,
        Format::Png => 2 * decoded,
        Format::WebP | Format::Gif | Format::Avif => 3 * decoded,
    };
    // Pixels of each artifact, and what encoding one of them takes.
    let artifacts = variants.iter().map(|variant| {
        let (width, height) = variant.geometry(probe.width, probe.height).size;
        let (size, encoding) = (u64::from(width) * u64::from(height), Encoding { samples, decoded });
        if variant.is_optimized(probe.format) {
            (0, pixels * encoding.whole(probe.format))
        } else if variant.watermark.is_some() {
            let coloured = Encoding { samples: samples.max(3), ..encoding };
            (size, size * (4 + coloured.sized(variant.format).max(8)))
        } else {
            (size, size * encoding.sized(variant.format))
        }
    });
    let (levels, largest) = artifacts
        .fold((0, 0), |(levels, largest), (level, encoding)| (levels + level, encoding.max(largest)));
    let copy = if deep > 1 { samples } else { 0 };
    // To half the size takes `samples / 2` between the passes and `samples / 4` for the level, and less to a smaller
    // one; what is larger than that is less than what encoding it takes.
    let passes = if probe.format == Format::Jpeg { samples } else { 2 * samples };
    // The largest is encoded while the picture and all levels are held.
    let held = pixels * (decoded + copy);
    let peak = (pixels * decoding).max(held + pixels * passes).max(held + levels * samples + largest);
    let is_named = |name| variants.iter().any(|variant| variant.watermark.as_ref() == Some(name));
    let named = watermarks.iter().filter(|(name, _)| is_named(name));
    let marks: u64 = named.map(|(_, watermark)| 3 * watermark.pixels.len() as u64).sum();
    // What the trials of oxipng and libwebp take whatever the picture's size, each freed and not yet taken back when the
    // next begins.
    let trials = if matches!(probe.format, Format::Png | Format::WebP) { FIXED } else { 0 };
    FIXED + trials + 3 * input + marks + peak
}

/// What encoding takes for a pixel, besides the picture.
struct Encoding {
    samples: u64,
    decoded: u64,
}

impl Encoding {
    /// Of the picture itself, in its own format.
    fn whole(&self, format: Format) -> u64 {
        match format {
            Format::Jpeg => 6 * self.samples,
            Format::Png => 6 * self.decoded,
            Format::WebP => self.webp(),
            Format::Gif => 0,
            Format::Avif => AVIF,
        }
    }

    /// Of an artifact at 8 bits; without a format it is a JPEG or a PNG.
    fn sized(&self, format: Option<Format>) -> u64 {
        match format {
            None | Some(Format::Jpeg | Format::Png | Format::Gif) => 6 * self.samples,
            Some(Format::WebP) => self.webp(),
            Some(Format::Avif) => AVIF,
        }
    }

    fn webp(&self) -> u64 {
        if self.samples < 4 { 34 } else { 64 }
    }
}

/// A bound on the memory that all running work takes together.
///
/// Who waits is served in the order in which they came: a large picture holds smaller ones up until it has its
/// room, and is held up by none that came later.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    mib: u32,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Reservation {
    permit: OwnedSemaphorePermit,
}

impl Reservation {
    /// How many bytes it is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.permit.num_permits() as u64 * MIB
    }
}

impl Budget {
    /// A budget of so many MiB.
    #[must_use]
    pub fn new(mib: u32) -> Self {
        Self { room: Arc::new(Semaphore::new(mib as usize)), mib }
    }

    /// Whether so many bytes can be had at all, as whole MiB.
    ///
    /// # Errors
    ///
    /// More than the whole budget is refused, and never run alone: the budget is what the machine can spare, and a
    /// picture that exceeds it would take the service with it just as well when nothing else runs.
    pub fn check(&self, probe: &Probe, bytes: u64) -> Result<u32, ImagingError> {
        let mib = bytes.div_ceil(MIB);
        match u32::try_from(mib) {
            Ok(mib) if mib <= self.mib => Ok(mib),
            _ => Err(ImagingError::TooLarge {
                width: probe.width,
                height: probe.height,
                limit: SizeLimit::Memory { needed: mib, budget: self.mib },
            }),
        }
    }

    /// Waits until so many MiB, which [`Budget::check`] gave, are free, and takes them. Dropping the future gives
    /// the place in the line up.
    ///
    /// # Errors
    ///
    /// None while the budget lives.
    pub async fn take(&self, mib: u32) -> Result<Reservation, ImagingError> {
        let permit = Arc::clone(&self.room).acquire_many_owned(mib).await;
        Ok(Reservation { permit: permit.map_err(|_| ImagingError::Stopped)? })
    }

    /// The bytes that are taken, of how many.
    #[must_use]
    pub fn usage(&self) -> (u64, u64) {
        let free = self.room.available_permits() as u64;
        let all = u64::from(self.mib);
        (all.saturating_sub(free) * MIB, all * MIB)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn probe(format: Format, side: u32, coding: Coding) -> Probe {
        Probe { format, width: side, height: side, coding }
    }

    fn rgb(progressive: bool) -> Coding {
        Coding { samples: 3, sample_bytes: 1, progressive }
    }

    #[test]
    fn the_trellis_encoder_decides_what_a_photo_takes() {
        let photo = probe(Format::Jpeg, 4096, rgb(false));
        let full = needed(&photo, 0, &Variant::defaults(), &Watermarks::new()) - FIXED;
        assert_eq!(full, 4096 * 4096 * 21 + (800 * 800 + 200 * 200) * 3);
        let small = [Variant { name: "s".to_owned(), width: Some(200), ..Variant::default() }];
        assert_eq!(needed(&photo, 0, &small, &Watermarks::new()) - FIXED, 4096 * 4096 * 6);
        let progressive = probe(Format::Jpeg, 4096, rgb(true));
        assert_eq!(needed(&progressive, 0, &small, &Watermarks::new()) - FIXED, 4096 * 4096 * 9);
    }

    #[test]
    fn depth_and_variants_as_large_as_the_picture_count() {
        let deep = Coding { sample_bytes: 2, ..Coding::default() };
        let variants = Variant::defaults();
        let of = |coding| needed(&probe(Format::Png, 2048, coding), 0, &variants, &Watermarks::new());
        assert!(of(deep) > of(Coding::default()));
        let same = [Variant { name: "same".to_owned(), width: Some(4096), ..Variant::default() }];
        let small = [Variant { name: "small".to_owned(), width: Some(100), ..Variant::default() }];
        let photo = probe(Format::Jpeg, 4096, rgb(false));
        assert!(needed(&photo, 0, &same, &Watermarks::new()) > needed(&photo, 0, &small, &Watermarks::new()));
        // A line of pixels is decoded in whole blocks.
        let line = Probe { height: 1, ..probe(Format::Jpeg, 16_384, rgb(true)) };
        assert!(needed(&line, 0, &variants, &Watermarks::new()) > FIXED + 16_384 * 32 * 9);
    }

    #[test]
    fn watermarks_count_where_they_are_named() {
        use crate::domain::image::{Placement, Position, Watermark};
        let placement = Placement { position: Position::Centre, width: 1, margin: 0, opacity: 1 };
        let watermark = Watermark { size: (500, 500), pixels: vec![0; 1_000_000], placement };
        let watermarks = Watermarks::from(["a", "b"].map(|name| (name.to_owned(), watermark.clone().into())));
        let photo = probe(Format::Jpeg, 4096, rgb(false));
        let of = |watermark: Option<&str>, width| {
            let watermark = watermark.map(str::to_owned);
            let variant = Variant { name: "v".to_owned(), width, watermark, ..Variant::default() };
            needed(&photo, 0, &[variant], &watermarks)
        };
        assert_eq!(of(Some("a"), Some(10)), of(None, Some(10)) + 3_000_000);
        // Drawn on a copy as large as the picture
        assert_eq!(of(Some("a"), Some(4096)), of(None, Some(4096)) + 3_000_000 + 4096 * 4096 * 4);
    }

    #[test]
    fn more_than_the_whole_budget_is_refused_by_name() {
        let budget = Budget::new(10);
        let probe = probe(Format::Jpeg, 4096, rgb(false));
        assert_eq!(budget.check(&probe, 10 * MIB).unwrap(), 10);
        let error = budget.check(&probe, 10 * MIB + 1).unwrap_err();
        let told = "the picture is too large: 4096 × 4096 pixels; it takes 11 MiB of memory to work on, and 10 are \
                    there for it";
        assert_eq!(error.to_string(), told);
        assert!(budget.check(&probe, u64::MAX).is_err());
    }

    #[tokio::test]
    async fn who_waits_is_served_in_order_and_may_give_up() {
        let budget = Budget::new(10);
        let held = budget.take(6).await.unwrap();
        assert_eq!(budget.usage(), (6 * MIB, 10 * MIB));
        let mut large = Box::pin(budget.take(8));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(budget.take(2));
        // Else small pictures would keep a large one waiting for ever.
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        let small = small.now_or_never().unwrap().unwrap();
        drop((held, small));
        assert_eq!(budget.usage(), (0, 10 * MIB));
        let all = budget.take(10).now_or_never().unwrap().unwrap();
        assert_eq!(all.bytes(), 10 * MIB);
    }
}
