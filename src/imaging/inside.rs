//! The inside of an imaging process: it reads pictures from its standard input and answers on its standard output.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use super::frames::{self, Failure, Mark, Reply, Request};
use super::{ImagingError, Step, render, walls};
use crate::domain::image::{Watermark, Watermarks};

/// What an imaging process may use at the most, all of its life.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: u64,
    /// Seconds of processor time.
    pub cpu_seconds: u64,
}

/// Where the code panicked last.
static PANICKED_AT: Mutex<String> = Mutex::new(String::new());

/// Walls itself in, and then works until its standard input ends.
///
/// # Errors
///
/// When a pipe breaks: the service has gone.
pub fn serve(bounds: &Bounds) -> io::Result<()> {
    // Nothing may fill the pipe of standard error, which is read only when this process has died.
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        *PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }));
    let walls = walls::raise(bounds);
    let (mut requests, mut replies) = (io::stdin().lock(), io::stdout().lock());
    frames::write(&mut replies, &Reply::Ready(walls), &[])?;
    while answer(bounds, &mut requests, &mut replies)? {}
    Ok(())
}

/// Whether there was a request.
fn answer(bounds: &Bounds, requests: &mut impl Read, replies: &mut impl Write) -> io::Result<bool> {
    let Some((request, input)) = frames::read::<Request>(requests, bounds.memory)? else { return Ok(false) };
    let watermarks = watermarks(request.watermarks, bounds, requests)?;
    let mut broken = None;
    let mut report = |step: Step| match send(step, replies) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    };
    // Unwind safe: of what it touches nothing is used again but the pipe, on which a whole frame was written or
    // `broken` says otherwise.
    let made = catch_unwind(AssertUnwindSafe(|| {
        let Request { variants, handling, limits, .. } = &request;
        render(&input, variants, &watermarks, handling, limits, &mut report)
    }));
    if let Some(error) = broken {
        return Err(error);
    }
    let reply = match made.unwrap_or(Err(ImagingError::Panicked)) {
        Ok(()) => Reply::Done,
        Err(error) => {
            let place = PANICKED_AT.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Reply::Failed(Failure::of(error, place))
        }
    };
    frames::write(replies, &reply, &[])?;
    Ok(true)
}

fn watermarks(count: usize, bounds: &Bounds, requests: &mut impl Read) -> io::Result<Watermarks> {
    let mut watermarks = Watermarks::new();
    for _ in 0..count {
        let frame = frames::read::<Mark>(requests, bounds.memory)?;
        let (Mark { name, size, placement }, pixels) = frame.ok_or(io::ErrorKind::UnexpectedEof)?;
        watermarks.insert(name, Arc::new(Watermark { size, pixels, placement }));
    }
    Ok(watermarks)
}

fn send(mut step: Step, replies: &mut impl Write) -> io::Result<()> {
    let body = match &mut step {
        Step::Artifact(rendered) => std::mem::take(&mut rendered.bytes),
        Step::Stage(_) | Step::Placeholder(_) => Vec::new(),
    };
    frames::write(replies, &Reply::Step(step), &body)
}
