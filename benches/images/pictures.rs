//! The pictures of a folder.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use darkroom::domain::image::{Format, Handling, Limits, Variant};
use darkroom::imaging::{Probe, probe};

/// As in `config/default.toml`.
pub(crate) const LIMITS: Limits = Limits { max_pixels: 64_000_000, max_side: 16_384 };

pub(crate) struct Picture {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) probe: Probe,
}

impl Picture {
    pub(crate) fn open(path: &Path) -> Option<Self> {
        let mut file = BufReader::new(File::open(path).unwrap());
        let probe = probe(&mut file, &Handling::default(), &LIMITS).ok()?;
        let name = path.file_stem()?.to_string_lossy().into_owned();
        let bytes = path.metadata().unwrap().len();
        let path = path.canonicalize().unwrap();
        Some(Self { path, name, bytes, probe })
    }

    /// The size that it has at a width, by our rule.
    pub(crate) fn sized(&self, width: u32) -> (u32, u32) {
        let variant = Variant { width: Some(width), ..Variant::default() };
        variant.geometry(self.probe.width, self.probe.height).size
    }

    pub(crate) fn is_progressive(&self) -> bool {
        self.probe.format == Format::Jpeg && self.probe.coding.progressive
    }
}

/// All that are accepted, by name.
pub(crate) fn of(folder: &Path) -> Vec<Picture> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().filter(|path| path.is_file()).filter_map(|path| Picture::open(&path)).collect()
}

/// The variants of a kind of job, under the names that all contenders give them.
pub(crate) fn variants(kind: &str) -> Vec<Variant> {
    let named = |name: &str, width| Variant { name: name.to_owned(), width, ..Variant::default() };
    let mut variants = vec![named("preview", Some(800)), named("thumbnail", Some(200))];
    match kind {
        "full" => variants.push(named("original", None)),
        "png" => variants = vec![Variant { format: Some(Format::Png), ..named("preview", Some(800)) }],
        _ => {}
    }
    variants
}
