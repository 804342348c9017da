//! `darkroom export` and `darkroom import`: a whole data folder in one file, and back.

use std::fs::{self, File};
use std::io::{IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::io::AsyncWriteExt as _;

use super::api::{Api, Target};
use super::error::CliError;
use super::{output, serve};
use crate::app::backup::{self, Progress, Summary};
use crate::clock::Clock;
use crate::config::{Config, Sources};

/// How long the service may send none of an export.
const STALLED: Duration = Duration::from_secs(120);
const REDRAW: Duration = Duration::from_millis(120);

const EXPORT_NOTES: &str = "\
Examples:
  darkroom export backup.tar
  darkroom export backup.tar --data-dir /var/lib/darkroom --url http://127.0.0.1:8080

The export holds jobs, events, deliveries, attempts, idempotency keys and pictures, all of one moment. Where a service \
has the data folder open, that service is asked (--url) and goes on working. The file is read back and checked before \
it gets its name. Pictures that are missing on disk are named, and the exit code is 1; everything else is in the file.

KEEP THE FILE SAFE: it holds the signing secret of the data folder, the secrets of callbacks and, where that is a file of \
the data folder, the key that opens them. A key that is configured is not in it: keep that one, too. Only the file's owner \
may read it (mode 0600).";

const IMPORT_NOTES: &str = "\
Examples:
  darkroom import backup.tar --data-dir /var/lib/darkroom-restored
  darkroom import backup.tar --dry-run

The whole file is checked before anything is written: a file that is cut off or altered is refused. The folder must not \
have a store. An import that is cut off leaves a folder that `darkroom serve` refuses; empty it and import again. \
Whatever was under way at the time of the export is taken up again, so callbacks that were sent since are sent once more.";

/// What to export, and where to.
#[derive(clap::Args)]
#[command(after_help = EXPORT_NOTES)]
pub(super) struct ExportArgs {
    /// The file to write, a tar file
    file: PathBuf,
    #[command(flatten)]
    folder: Folder,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// Print what the file holds as JSON
    #[arg(long)]
    json: bool,
}

/// What to import, and where to.
#[derive(clap::Args)]
#[command(after_help = IMPORT_NOTES)]
pub(super) struct ImportArgs {
    /// A file that `darkroom export` wrote
    file: PathBuf,
    #[command(flatten)]
    folder: Folder,
    /// Check the file and the folder, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what the file holds as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Folder {
    /// The folder of everything that lasts [default: darkroom-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// A configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Folder {
    fn config(self) -> Result<Config, CliError> {
        let flags = self.data_dir.map(|folder| ("storage.data_dir", folder)).into_iter().collect();
        let environment = serve::environment()?;
        Ok(Config::load(Sources { dev: false, file: self.config, environment, flags })?)
    }
}

#[derive(Serialize)]
struct Report<'a> {
    file: String,
    #[serde(flatten)]
    summary: &'a Summary,
}

pub(super) async fn export(args: ExportArgs, target: &Target) -> Result<(), CliError> {
    let config = args.folder.config()?;
    let file = args.file;
    if !args.force && file.exists() {
        return Err(CliError::Usage(format!("{} is there already; --force overwrites it", file.display())));
    }
    let part = Part::create(&file)?;
    let folder = config.storage.data_dir.display().to_string();
    let shown = Shown::start(&format!("exporting {folder}"));
    let out = part.file.try_clone().map_err(|source| part.failed(source))?;
    match backup::export(config, Clock::system(), out, shown.counter()).await {
        Err(error) if error.is_locked() => {
            shown.note(&format!("{folder} is in use: asking the service at {}", target.url()?));
            download(&part, target, &shown).await?;
        }
        other => other?,
    }
    drop(shown);
    part.file.sync_all().map_err(|source| part.failed(source))?;
    let shown = Shown::start("reading it back");
    let summary = backup::check(part.path.clone(), shown.counter()).await?;
    drop(shown);
    part.finish(&file)?;
    report("exported to", &file.display().to_string(), &file, &summary, args.json)?;
    if summary.missing > 0 {
        let missing = summary.missing;
        return Err(CliError::Check(format!("{missing} pictures are missing; everything else is exported")));
    }
    Ok(())
}

async fn download(part: &Part, target: &Target, shown: &Shown) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let root = api.root().await?;
    let (mut response, url) = api.open(root.href("backup")?).await?;
    let out = part.file.try_clone().map_err(|source| part.failed(source))?;
    let mut out = tokio::fs::File::from_std(out);
    let mut count = shown.counter();
    let mut done = Progress::default();
    loop {
        let chunk = tokio::time::timeout(STALLED, response.chunk()).await;
        let chunk = chunk.map_err(|_| CliError::NoAnswer { url: url.clone() })?;
        let Some(chunk) = chunk.map_err(|error| CliError::request(&error, &url))? else { break };
        out.write_all(&chunk).await.map_err(|source| part.failed(source))?;
        done.bytes += chunk.len() as u64;
        count(done);
    }
    out.flush().await.map_err(|source| part.failed(source))
}

pub(super) async fn import(args: ImportArgs) -> Result<(), CliError> {
    let config = args.folder.config()?;
    let name = args.file.display();
    File::open(&args.file).map_err(|source| CliError::input(format!("cannot read {name}"), source))?;
    backup::check_vacancy(&config.storage)?;
    let folder = config.storage.data_dir.display().to_string();
    let shown = Shown::start(&format!("checking {}", args.file.display()));
    let summary = backup::check(args.file.clone(), shown.counter()).await?;
    drop(shown);
    if args.dry_run {
        return report("can be imported into", &folder, &args.file, &summary, args.json);
    }
    let shown = Shown::start(&format!("importing into {folder}"));
    backup::import(config, Clock::system(), args.file.clone(), shown.counter()).await?;
    drop(shown);
    report("imported into", &folder, &args.file, &summary, args.json)
}

fn report(what: &str, place: &str, file: &Path, summary: &Summary, json: bool) -> Result<(), CliError> {
    for missing in &summary.missing_pictures {
        output::note(&format!("missing: {}/{}: {}", missing.job, missing.name, missing.reason));
    }
    for key in &summary.needed_keys {
        output::note(&format!(
            "needed besides: the encryption key {key}, which is not in the file; its owner has it in \
             storage.encryption_key or storage.previous_encryption_keys"
        ));
    }
    if json {
        let report = Report { file: file.display().to_string(), summary };
        let document = serde_json::to_string(&report);
        return output::json(&document.map_err(|error| CliError::Output(error.into()))?);
    }
    let Summary { records, pictures, bytes, .. } = summary;
    output::line(&format!(
        "{records} records and {pictures} pictures ({}) {what} {place}",
        HumanBytes(*bytes)
    ))
}

/// The file until it is whole. Dropped before that, it is gone.
struct Part {
    file: File,
    path: PathBuf,
    finished: bool,
}

impl Part {
    fn create(target: &Path) -> Result<Self, CliError> {
        let mut path = target.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let failed = |source| CliError::io(format!("cannot write {}", path.display()), source);
        // One that a killed process left: made anew, so that it has the right mode.
        if path.exists() {
            fs::remove_file(&path).map_err(failed)?;
        }
        let mut options = File::options();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path).map_err(failed)?;
        Ok(Self { file, path, finished: false })
    }

    /// Gives it its name; afterwards it survives a power cut.
    fn finish(mut self, target: &Path) -> Result<(), CliError> {
        fs::rename(&self.path, target).map_err(|source| self.failed(source))?;
        self.finished = true;
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
        synced.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> CliError {
        CliError::io(format!("cannot write {}", self.path.display()), source)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.finished {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is being done: counted on a terminal, else a line. The counts are gone when this is dropped.
struct Shown(ProgressBar);

impl Shown {
    fn start(what: &str) -> Self {
        if !stderr().is_terminal() {
            output::note(what);
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{spinner} {prefix} {msg}");
        let bar =
            ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_prefix(output::printable(what).into_owned());
        bar.enable_steady_tick(REDRAW);
        Self(bar)
    }

    fn note(&self, text: &str) {
        self.0.suspend(|| output::note(text));
    }

    fn counter(&self) -> impl FnMut(Progress) + Send + 'static {
        let bar = self.0.clone();
        move |Progress { records, pictures, bytes }: Progress| {
            bar.set_message(format!("{records} records, {pictures} pictures, {}", HumanBytes(bytes)));
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
