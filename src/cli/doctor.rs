//! `darkroom doctor`: whether a service is well, and whether every delivery is accounted for.

use serde::Deserialize;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::{Imaging, Links, Queue};
use super::output;
use super::pages;

/// What to check.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Count every record of the store anew; it takes time in proportion to the store
    #[arg(long)]
    recount: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ledger {
    accepted: u64,
    delivered: u64,
    waiting: u64,
    exhausted: u64,
    cancelled: u64,
    balanced: bool,
    recount: Option<Recount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Recount {
    faults: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Destination {
    id: String,
    origin: String,
    state: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Ok,
    Look,
    Fault,
}

impl Grade {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Look => "look",
            Self::Fault => "fault",
        }
    }
}

struct Finding {
    grade: Grade,
    what: &'static str,
    detail: String,
}

pub(super) async fn run(args: Args, target: &Target) -> Result<(), CliError> {
    let api = Api::new(target)?;
    let root = api.root().await?;
    let mut findings = vec![Finding { grade: Grade::Ok, what: "service", detail: "answers".to_owned() }];
    findings.push(ready(&api, &root).await?);
    findings.extend(queue(&api, &root).await?);
    findings.extend(books(&api, &root, args.recount).await?);
    findings.extend(destinations(&api, &root).await?);
    for Finding { grade, what, detail } in &findings {
        if args.json {
            let line = serde_json::json!({ "grade": grade.as_str(), "check": what, "detail": detail });
            output::json(&line.to_string())?;
        } else {
            output::text(&format!("{:5}  {what}: {detail}", grade.as_str()))?;
        }
    }
    let faults = findings.iter().filter(|finding| finding.grade == Grade::Fault).count();
    if faults == 0 { Ok(()) } else { Err(CliError::Check(format!("{faults} checks failed"))) }
}

async fn ready(api: &Api, root: &Links) -> Result<Finding, CliError> {
    let answer: Result<Reply<serde_json::Value>, _> = api.get(root.href("ready")?).await;
    Ok(match answer {
        Ok(_) => Finding {
            grade: Grade::Ok,
            what: "ready",
            detail: "takes requests, and its store answers".to_owned(),
        },
        Err(error) => Finding { grade: Grade::Fault, what: "ready", detail: error.to_string() },
    })
}

async fn queue(api: &Api, root: &Links) -> Result<[Finding; 2], CliError> {
    let Queue { waiting, capacity, paused, imaging, .. } = api.get(root.href("queue")?).await?.body;
    let mut detail = format!("{waiting} of {capacity} jobs wait");
    if paused.intake || paused.work {
        detail += "; paused, see `darkroom queue`";
    }
    let grade = if paused.intake || paused.work || waiting >= capacity { Grade::Look } else { Grade::Ok };
    Ok([Finding { grade, what: "queue", detail }, walls(&imaging)])
}

/// What stands between a picture that takes its decoder over and everything else.
fn walls(imaging: &Imaging) -> Finding {
    let (grade, detail) = match (imaging.isolation.as_str(), imaging.missing.as_slice()) {
        ("process", []) => (Grade::Ok, format!("in processes of their own: {}", imaging.walls.join(", "))),
        ("process", missing) => {
            (Grade::Look, format!("in processes of their own, without: {}", missing.join(", ")))
        }
        _ => (Grade::Look, "on threads of the service; see imaging.isolation".to_owned()),
    };
    Finding { grade, what: "pictures", detail }
}

/// accepted = delivered + waiting + exhausted + cancelled
async fn books(api: &Api, root: &Links, recount: bool) -> Result<Vec<Finding>, CliError> {
    let mut url = api.resolve(root.href("ledger")?)?;
    if recount {
        url.query_pairs_mut().append_pair("recount", "true");
    }
    let ledger: Ledger = api.get(url.as_str()).await?.body;
    let Ledger { accepted, delivered, waiting, exhausted, cancelled, .. } = ledger;
    let sum = format!(
        "{accepted} accepted = {delivered} delivered + {waiting} waiting + {exhausted} exhausted + {cancelled} cancelled"
    );
    let grade = if ledger.balanced { Grade::Ok } else { Grade::Fault };
    let mut findings = vec![Finding { grade, what: "ledger", detail: sum }];
    if exhausted > 0 {
        let detail = format!(
            "{exhausted} were given up: `darkroom deliveries undelivered`, `darkroom replays start --dry-run`"
        );
        findings.push(Finding { grade: Grade::Look, what: "deliveries", detail });
    }
    if let Some(Recount { faults }) = ledger.recount {
        let (grade, detail) = match faults.first() {
            None => (Grade::Ok, "every record fits".to_owned()),
            Some(first) => (Grade::Fault, format!("{} faults, the first: {first}", faults.len())),
        };
        findings.push(Finding { grade, what: "recount", detail });
    }
    Ok(findings)
}

async fn destinations(api: &Api, root: &Links) -> Result<Vec<Finding>, CliError> {
    let found: Vec<Destination> =
        pages::read(api, root.href("destinations")?.to_owned(), true, false).await?;
    let unwell = found.iter().filter(|one| one.state != "well");
    let mut findings: Vec<_> = unwell
        .map(|one| {
            let detail = format!("{} ({}) is {}", one.origin, one.id, one.state);
            Finding { grade: Grade::Look, what: "destination", detail }
        })
        .collect();
    if findings.is_empty() {
        let detail = format!("{} known, all well", found.len());
        findings.push(Finding { grade: Grade::Ok, what: "destinations", detail });
    }
    Ok(findings)
}
