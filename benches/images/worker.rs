//! Our process: what an imaging process of the service does with a picture, asked for by line.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use darkroom::domain::image::{Handling, Watermarks};
use darkroom::imaging::{ImagingError, Rendered, Step, probe, render};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Map, Value, json};

use crate::figures;
use crate::pictures::{self, LIMITS};

/// Works until standard input ends.
pub(crate) fn run() {
    println!("{}", json!({ "version": concat!("darkroom ", env!("CARGO_PKG_VERSION")) }));
    for line in io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let path = PathBuf::from(job["input"].as_str().unwrap());
        let kind = job["kind"].as_str().unwrap();
        let answer = if kind == "refuse" { refuse(&path) } else { make(kind, &path, &job) };
        println!("{answer}");
    }
}

fn make(kind: &str, path: &Path, job: &Value) -> Value {
    let (cpu, wall) = (cpu_ms(), Instant::now());
    let made = rendered(kind, &fs::read(path).unwrap());
    let (cpu, wall) = (cpu_ms() - cpu, wall.elapsed().as_secs_f64() * 1000.0);
    let made = match made {
        Ok(made) => made,
        Err(error) => return json!({ "error": error.to_string() }),
    };
    let folder = Path::new(job["output"].as_str().unwrap());
    let mut files = Map::new();
    for artifact in made {
        let file = folder.join(format!("{}.{}", artifact.name, artifact.format.extension()));
        fs::write(&file, artifact.bytes).unwrap();
        files.insert(artifact.name, json!(file));
    }
    json!({ "cpu_ms": cpu, "wall_ms": wall, "files": files })
}

fn rendered(kind: &str, input: &[u8]) -> Result<Vec<Rendered>, ImagingError> {
    let mut made = Vec::new();
    let mut report = |step| {
        if let Step::Artifact(artifact) = step {
            made.push(artifact);
        }
        ControlFlow::Continue(())
    };
    let (variants, watermarks) = (pictures::variants(kind), Watermarks::new());
    render(input, &variants, &watermarks, &Handling::default(), &LIMITS, &mut report)?;
    Ok(made)
}

/// What it takes to say no. What is accepted is made, as it is then that it may become too much.
fn refuse(path: &Path) -> Value {
    let own = std::process::id();
    let (before, wall) = (figures::memory(own, "VmHWM"), Instant::now());
    let probed = probe(&mut BufReader::new(File::open(path).unwrap()), &Handling::default(), &LIMITS);
    let outcome = match probed {
        Ok(_) => match rendered("full", &fs::read(path).unwrap()) {
            Ok(_) => "accepted, and made".to_owned(),
            Err(error) => format!("accepted, then refused: {error}"),
        },
        Err(error) => error.to_string(),
    };
    let (wall, after) = (wall.elapsed().as_secs_f64() * 1000.0, figures::memory(own, "VmHWM"));
    json!({ "wall_ms": wall, "mib": after - before, "outcome": outcome })
}

/// User and system time of the whole process.
fn cpu_ms() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 * 1e3 + used.tv_nsec as f64 / 1e6
}
