//! The threads that imaging runs on.

use std::io::{self, Cursor};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::frames::Walls;
use super::memory::{Budget, Reservation, needed};
use super::process::{Cutoff, Launcher, Seat};
use super::{ImagingError, Probe, Step, probe, render};
use crate::domain::image::{Handling, Limits, Variant, Watermarks};

/// How long the first processes may take to be ready.
const START_TIME: Duration = Duration::from_secs(30);

/// How long a process keeps what its last picture took, so that the next one need not have it zeroed again; by the end of it
/// there is none under load.
const REST: Duration = Duration::from_secs(5);

/// Each thread hands its process, if it has one, to its work.
type Work = Box<dyn FnOnce(Option<&mut Seat>) + Send>;

/// The right to one of the threads. It is free for the next when the last clone is dropped; the work that runs
/// under it holds one, so that a thread whose caller has gone away counts as busy until it is free.
pub type Permit = Arc<OwnedSemaphorePermit>;

/// What is to be made of a picture.
#[derive(Debug)]
pub struct Task {
    /// The picture's file.
    pub input: Vec<u8>,
    /// What is wanted of it.
    pub variants: Vec<Variant>,
    /// The watermarks that they name.
    pub watermarks: Watermarks,
    /// How it is read, and what is kept of it.
    pub handling: Handling,
    /// What it may cost.
    pub limits: Limits,
}

/// A bounded number of own threads that run imaging; never the async runtime's.
///
/// Whoever has work takes a permit of [`Pool::room`] first, so that work begins when it is handed over.
/// Dropping the pool ends each thread once its current work is done.
#[derive(Debug)]
pub struct Pool {
    queue: Sender<Work>,
    room: Arc<Semaphore>,
    budget: Budget,
    walls: Option<Walls>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a thread; those already started end again.
    pub fn new(threads: NonZeroUsize, budget: Budget) -> io::Result<Self> {
        Ok(Self::start(threads, budget, None)?.0)
    }

    /// Starts the threads, and for each a process in which its work on pictures is done. Returns when all are ready.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a thread or a process, or a process is not ready in time.
    pub async fn of_processes(
        threads: NonZeroUsize,
        budget: Budget,
        launcher: &Launcher,
    ) -> Result<Self, ImagingError> {
        let (mut pool, mut ready) = Self::start(threads, budget, Some(launcher))?;
        let all = async {
            while let Some(started) = ready.recv().await {
                pool.walls = Some(started?);
            }
            Ok::<_, ImagingError>(())
        };
        tokio::time::timeout(START_TIME, all).await.map_err(io::Error::from)??;
        for (wall, stands) in pool.walls.iter().flat_map(Walls::named) {
            if !stands {
                tracing::warn!(wall, "imaging processes do without: this system has none");
            }
        }
        Ok(pool)
    }

    fn start(
        threads: NonZeroUsize,
        budget: Budget,
        launcher: Option<&Launcher>,
    ) -> io::Result<(Self, mpsc::Receiver<Result<Walls, ImagingError>>)> {
        let (queue, waiting) = crossbeam_channel::bounded(threads.get());
        let (started, ready) = mpsc::channel(threads.get());
        for index in 0..threads.get() {
            let (waiting, started) = (waiting.clone(), started.clone());
            let mut seat = launcher.cloned().map(Seat::new);
            thread::Builder::new().name(format!("imaging-{index}")).spawn(move || {
                if let Some(seat) = &mut seat {
                    // Nobody waits any more where another has failed.
                    let _ = started.blocking_send(seat.start(&Cutoff::default()));
                }
                drop(started);
                work_off(&waiting, seat.as_mut());
            })?;
        }
        let room = Arc::new(Semaphore::new(threads.get()));
        Ok((Self { queue, room, budget, walls: None }, ready))
    }

    /// What keeps the processes in; `None` where there are none.
    #[must_use]
    pub fn walls(&self) -> Option<Walls> {
        self.walls
    }

    /// The threads that are free, as permits.
    #[must_use]
    pub fn room(&self) -> &Arc<Semaphore> {
        &self.room
    }

    /// The memory that all work shares.
    #[must_use]
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Refuses a picture of so many bytes of which `variants` could never be made, for want of memory. Of `watermarks`
    /// those count that they name.
    ///
    /// # Errors
    ///
    /// [`ImagingError::TooLarge`]
    pub fn admit(
        &self,
        probe: &Probe,
        bytes: u64,
        variants: &[Variant],
        watermarks: &Watermarks,
    ) -> Result<(), ImagingError> {
        self.budget.check(probe, needed(probe, bytes, variants, watermarks)).map(drop)
    }

    /// Waits until there is memory for the task, as long as that takes, and takes it. The picture's header is read
    /// on the thread that `permit` stands for.
    ///
    /// # Errors
    ///
    /// Everything that [`probe`] refuses, and what takes more than there is.
    pub async fn reserve(&self, permit: &Permit, task: &Arc<Task>) -> Result<Reservation, ImagingError> {
        let (budget, task) = (self.budget.clone(), Arc::clone(task));
        let measured = self.run(Arc::clone(permit), move || {
            let probe = probe(&mut Cursor::new(&task.input), &task.handling, &task.limits)?;
            let bytes = task.input.len() as u64;
            budget.check(&probe, needed(&probe, bytes, &task.variants, &task.watermarks))
        });
        self.budget.take(measured.await?).await
    }

    /// Does the task on the thread that `permit` stands for, in the memory that was reserved for it, and sends each
    /// step. Dropping the future ends the work: at once in a process, which is killed, and else at the next step.
    ///
    /// # Errors
    ///
    /// Those of [`render`], [`ImagingError::Panicked`] and [`ImagingError::Died`].
    pub async fn render(
        &self,
        permit: Permit,
        room: Reservation,
        task: Arc<Task>,
        steps: mpsc::Sender<Step>,
    ) -> Result<(), ImagingError> {
        let cutoff = Arc::new(Cutoff::default());
        let _cut_off_when_dropped = CutOffWhenDropped(Arc::clone(&cutoff));
        let work = move |seat: Option<&mut Seat>| {
            let room = room;
            if let Some(seat) = seat {
                return seat.render(&task, room.bytes(), &steps, &cutoff);
            }
            let Task { input, variants, watermarks, handling, limits } = &*task;
            render(input, variants, watermarks, handling, limits, &mut |step| match steps.blocking_send(step)
            {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
        };
        self.run_seated(permit, work).await
    }

    /// Runs `work` on the thread that `permit` stands for.
    ///
    /// Work whose caller has gone away before it began is skipped.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`ImagingError::Panicked`] when it panics, which the thread survives.
    pub async fn run<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce() -> Result<T, ImagingError> + Send + 'static,
    ) -> Result<T, ImagingError> {
        self.run_seated(permit, |_| work()).await
    }

    async fn run_seated<T: Send + 'static>(
        &self,
        permit: Permit,
        work: impl FnOnce(Option<&mut Seat>) -> Result<T, ImagingError> + Send + 'static,
    ) -> Result<T, ImagingError> {
        let (reply, outcome) = oneshot::channel();
        let work: Work = Box::new(move |seat| {
            let _permit = permit;
            if reply.is_closed() {
                return;
            }
            // Unwind safe: what `work` has touched is dropped with it, or is the caller's to judge.
            let result = catch_unwind(AssertUnwindSafe(|| work(seat))).unwrap_or(Err(ImagingError::Panicked));
            // An error means that nobody waits any longer.
            let _ = reply.send(result);
        });
        // There is room, as each thread's permit sends it one piece at a time; and its threads survive panics.
        self.queue.try_send(work).map_err(|_| ImagingError::Stopped)?;
        outcome.await.unwrap_or(Err(ImagingError::Panicked))
    }
}

/// Nobody waits for the work any more.
struct CutOffWhenDropped(Arc<Cutoff>);

impl Drop for CutOffWhenDropped {
    fn drop(&mut self) {
        self.0.cut_off();
    }
}

fn work_off(waiting: &Receiver<Work>, mut seat: Option<&mut Seat>) {
    loop {
        match waiting.recv_timeout(REST) {
            Ok(work) => work(seat.as_deref_mut()),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(seat) = &mut seat {
                    seat.rest();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    fn pool(threads: usize) -> Pool {
        Pool::new(NonZeroUsize::new(threads).unwrap(), Budget::new(64)).unwrap()
    }

    async fn permit(pool: &Pool) -> Permit {
        let permit = Arc::clone(pool.room()).acquire_owned();
        Arc::new(tokio::time::timeout(Duration::from_secs(60), permit).await.unwrap().unwrap())
    }

    async fn run<T: Send + 'static>(
        pool: &Pool,
        work: impl FnOnce() -> Result<T, ImagingError> + Send + 'static,
    ) -> Result<T, ImagingError> {
        pool.run(permit(pool).await, work).await
    }

    #[tokio::test]
    async fn results_and_errors_come_back() {
        let pool = pool(2);
        assert_eq!(pool.room().available_permits(), 2);
        assert_eq!(run(&pool, || Ok(6 * 7)).await.unwrap(), 42);
        let error = run(&pool, || Err::<(), _>(ImagingError::Stopped)).await.unwrap_err();
        assert!(matches!(error, ImagingError::Stopped));
    }

    #[tokio::test]
    async fn a_panic_neither_escapes_nor_costs_the_thread() {
        let pool = pool(1);
        let name = || Ok(thread::current().name().map(str::to_owned));
        let before = run(&pool, name).await.unwrap();
        for _ in 0..3 {
            let error = run(&pool, || -> Result<(), _> { panic!("a decoder's defect") }).await.unwrap_err();
            assert!(matches!(error, ImagingError::Panicked));
        }
        assert_eq!(run(&pool, name).await.unwrap(), before);
        assert_eq!(before.as_deref(), Some("imaging-0"));
    }

    #[tokio::test]
    async fn no_more_runs_at_a_time_than_there_are_threads() {
        let pool = pool(2);
        let running = Arc::new(AtomicUsize::new(0));
        let peak = Arc::new(AtomicUsize::new(0));
        let work = || {
            let (running, peak) = (Arc::clone(&running), Arc::clone(&peak));
            move || {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                peak.fetch_max(now, Ordering::SeqCst);
                thread::sleep(Duration::from_millis(5));
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        };
        let (a, b, c, d, e, f) = tokio::join!(
            run(&pool, work()),
            run(&pool, work()),
            run(&pool, work()),
            run(&pool, work()),
            run(&pool, work()),
            run(&pool, work())
        );
        for result in [a, b, c, d, e, f] {
            result.unwrap();
        }
        assert_eq!(peak.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_skipped() {
        let pool = Arc::new(pool(1));
        let (release, gate) = channel::<()>();
        let (begun, beginning) = oneshot::channel();
        let only = permit(&pool).await;
        let spawn = |work: Box<dyn FnOnce() -> Result<(), ImagingError> + Send>| {
            let (pool, permit) = (Arc::clone(&pool), Arc::clone(&only));
            tokio::spawn(async move { pool.run(permit, work).await })
        };
        let overrun = spawn(Box::new(move || {
            begun.send(()).unwrap();
            gate.recv().map_err(|_| ImagingError::Stopped)
        }));
        beginning.await.unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let abandoned = spawn({
            let ran = Arc::clone(&ran);
            Box::new(move || {
                ran.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        });
        tokio::task::yield_now().await;
        drop(only);
        for caller in [overrun, abandoned] {
            caller.abort();
            assert!(caller.await.unwrap_err().is_cancelled());
        }
        release.send(()).unwrap();
        run(&pool, || Ok(())).await.unwrap();
        assert_eq!(ran.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn dropping_the_pool_ends_its_threads() {
        struct OnExit(std::sync::mpsc::Sender<()>);
        impl Drop for OnExit {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        thread_local!(static EXIT: RefCell<Option<OnExit>> = const { RefCell::new(None) });
        let (exited, exits) = channel();
        let pool = pool(1);
        run(&pool, move || {
            EXIT.with(|exit| *exit.borrow_mut() = Some(OnExit(exited)));
            Ok(())
        })
        .await
        .unwrap();
        drop(pool);
        exits.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}
