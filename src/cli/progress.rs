//! A job's progress on standard error: a bar on a terminal, else a line for each change.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};

use super::model::Job;
use super::{output, render};

const REDRAW: Duration = Duration::from_millis(120);
const TEMPLATE: &str = "{spinner} {bar:30} {msg}";

/// Where progress is shown. A bar is gone when this is dropped.
pub(super) enum Progress {
    Bar(ProgressBar),
    Lines { last: String },
}

impl Progress {
    pub(super) fn on_stderr() -> Self {
        if !stderr().is_terminal() {
            return Self::Lines { last: String::new() };
        }
        let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(100).with_style(style).with_finish(ProgressFinish::AndClear);
        bar.enable_steady_tick(REDRAW);
        Self::Bar(bar)
    }

    pub(super) fn show(&mut self, job: &Job) {
        let status = render::status(job);
        match self {
            Self::Bar(bar) => {
                let percent = job.progress.as_ref().and_then(|progress| progress.percent).unwrap_or(0.0);
                bar.set_position(whole(percent));
                bar.set_message(output::printable(&status).into_owned());
            }
            Self::Lines { last } if *last != status => {
                output::note(&format!("{}  {status}", job.id));
                *last = status;
            }
            Self::Lines { .. } => {}
        }
    }
}

/// A percentage as the bar takes it; what is no percentage is none.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100; NaN becomes 0"
)]
fn whole(percent: f64) -> u64 {
    percent.clamp(0.0, 100.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_takes_any_number() {
        assert_eq!([-5.0, 33.9, 1e300, f64::NAN, f64::INFINITY].map(whole), [0, 33, 100, 0, 100]);
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
