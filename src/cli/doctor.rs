//! `darkroom doctor`: whether a service is well, and whether every delivery is accounted for.

use std::cmp::Reverse;

use serde::Deserialize;

use super::api::{Api, Reply, Target};
use super::error::CliError;
use super::model::{Imaging, Links, Queue};
use super::output;
use super::pages::{self, Paging};

/// Destinations that are not well and named; the others are counted.
const MAX_NAMED: usize = 10;
/// States that are not well, the worst first. One of a later version is worse than these: nobody knows what it is.
const UNWELL: [&str; 5] = ["suspended", "disabled", "open", "paused", "failing"];

/// What to check.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Count every record of the store anew; it takes time in proportion to the store
    #[arg(long)]
    recount: bool,
    /// Print each finding as a JSON document on a line of its own
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
    waiting: u64,
    failures: u64,
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
            output::line(&format!("{:5}  {what}: {detail}", grade.as_str()))?;
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
    let Queue { waiting, capacity, fetches, paused, imaging, .. } = api.get(root.href("queue")?).await?.body;
    let mut detail = format!("{waiting} of {capacity} jobs wait");
    if fetches.waiting > 0 {
        detail += &format!(", {} of {} for their picture", fetches.waiting, fetches.capacity);
    }
    if paused.intake || paused.work {
        detail += "; paused, see `darkroom queue`";
    }
    // A service of an earlier version tells of no fetches.
    let is_full = waiting >= capacity || fetches.waiting > 0 && fetches.waiting >= fetches.capacity;
    let grade = if paused.intake || paused.work || is_full { Grade::Look } else { Grade::Ok };
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
    let list = api.resolve(root.href("destinations")?)?;
    Ok(judge(pages::read(api, list, &Paging::ALL, false).await?))
}

/// Names the worst: by their state, and then by how much waits for them.
fn judge(found: Vec<Destination>) -> Vec<Finding> {
    let known = found.len();
    let mut unwell: Vec<_> = found.into_iter().filter(|one| one.state != "well").collect();
    if unwell.is_empty() {
        let detail = format!("{known} known, all well");
        return vec![Finding { grade: Grade::Ok, what: "destinations", detail }];
    }
    unwell.sort_by_key(|one| {
        let rank = UNWELL.iter().position(|state| *state == one.state);
        (rank, Reverse(one.waiting), Reverse(one.failures))
    });
    let look = |what, detail| Finding { grade: Grade::Look, what, detail };
    let named = unwell.iter().take(MAX_NAMED).map(|one| {
        let Destination { id, origin, state, waiting, .. } = one;
        look("destination", format!("{origin} ({id}) is {state}; {waiting} wait"))
    });
    let mut findings: Vec<_> = named.collect();
    if let Some(others) = unwell.len().checked_sub(MAX_NAMED).filter(|others| *others > 0) {
        let detail = format!("{others} more of {known} are not well: `darkroom destinations list --all`");
        findings.push(look("destinations", detail));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(states: &[(&str, u64)]) -> Vec<String> {
        let one = |(n, (state, waiting)): (usize, &(&str, u64))| Destination {
            id: format!("dst_{n}"),
            origin: "https://a.example".to_owned(),
            state: (*state).to_owned(),
            waiting: *waiting,
            failures: 0,
        };
        judge(states.iter().enumerate().map(one).collect()).into_iter().map(|one| one.detail).collect()
    }

    #[test]
    fn the_worst_destinations_are_named_and_the_rest_is_counted() {
        assert_eq!(told(&[("well", 0), ("well", 3)]), ["2 known, all well"]);
        let few = told(&[("failing", 9), ("well", 0), ("suspended", 1), ("open", 2), ("open", 3)]);
        let order: Vec<_> = few.iter().filter_map(|line| line.split(['(', ')']).nth(1)).collect();
        assert_eq!(order, ["dst_2", "dst_4", "dst_3", "dst_0"]);
        assert_eq!(told(&[("failing", 0); MAX_NAMED]).len(), MAX_NAMED);
        let many = told(&[("failing", 0); 32]);
        assert_eq!(many.len(), MAX_NAMED + 1);
        assert!(many[MAX_NAMED].starts_with("22 more of 32 are not well"), "{many:?}");
    }
}
