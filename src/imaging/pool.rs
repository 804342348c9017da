//! The threads that imaging runs on.

use std::io;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::ImagingError;

type Work = Box<dyn FnOnce() + Send>;

/// A bounded number of own threads that run imaging; never the async runtime's.
///
/// At most as many pieces of work as there are threads wait in its queue; further callers wait to get in.
/// Dropping the pool ends each thread once its current work is done.
#[derive(Debug)]
pub struct Pool {
    queue: mpsc::Sender<Work>,
    threads: NonZeroUsize,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// When the operating system refuses a thread; those already started end again.
    pub fn new(threads: NonZeroUsize) -> io::Result<Self> {
        let (queue, waiting) = mpsc::channel(threads.get());
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..threads.get() {
            let waiting = Arc::clone(&waiting);
            thread::Builder::new().name(format!("imaging-{index}")).spawn(move || work_off(&waiting))?;
        }
        Ok(Self { queue, threads })
    }

    /// How many pieces of work run at a time.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.get()
    }

    /// Runs `work` on one of the threads, as soon as one is free.
    ///
    /// Work whose caller has gone away before it began is skipped.
    ///
    /// # Errors
    ///
    /// Those of `work`, and [`ImagingError::Panicked`] when it panics, which the thread survives.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ImagingError> + Send + 'static,
    ) -> Result<T, ImagingError> {
        let (reply, outcome) = oneshot::channel();
        let work: Work = Box::new(move || {
            if reply.is_closed() {
                return;
            }
            // Unwind safe: what `work` has touched is dropped with it, or is the caller's to judge.
            let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ImagingError::Panicked));
            // An error means that nobody waits any longer.
            let _ = reply.send(result);
        });
        // Neither fails while the pool lives, as its threads survive panics.
        self.queue.send(work).await.map_err(|_| ImagingError::Stopped)?;
        outcome.await.unwrap_or(Err(ImagingError::Panicked))
    }
}

fn work_off(waiting: &Mutex<mpsc::Receiver<Work>>) {
    loop {
        // One idle thread waits inside the lock, the others for it. It guards nothing that a panic could
        // leave half done, and is released before the work starts.
        let work = waiting.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        match work {
            Some(work) => work(),
            None => return,
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
        Pool::new(NonZeroUsize::new(threads).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn results_and_errors_come_back() {
        let pool = pool(2);
        assert_eq!(pool.threads(), 2);
        assert_eq!(pool.run(|| Ok(6 * 7)).await.unwrap(), 42);
        let error = pool.run(|| Err::<(), _>(ImagingError::Stopped)).await.unwrap_err();
        assert!(matches!(error, ImagingError::Stopped));
    }

    #[tokio::test]
    async fn a_panic_neither_escapes_nor_costs_the_thread() {
        let pool = pool(1);
        let name = || Ok(thread::current().name().map(str::to_owned));
        let before = pool.run(name).await.unwrap();
        for _ in 0..3 {
            let error = pool.run(|| -> Result<(), _> { panic!("a decoder's defect") }).await.unwrap_err();
            assert!(matches!(error, ImagingError::Panicked));
        }
        assert_eq!(pool.run(name).await.unwrap(), before);
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
            pool.run(work()),
            pool.run(work()),
            pool.run(work()),
            pool.run(work()),
            pool.run(work()),
            pool.run(work())
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
        let first = tokio::spawn({
            let pool = Arc::clone(&pool);
            let work = move || {
                begun.send(()).unwrap();
                gate.recv().map_err(|_| ImagingError::Stopped)
            };
            async move { pool.run(work).await }
        });
        beginning.await.unwrap();
        let ran = Arc::new(AtomicUsize::new(0));
        let abandoned = {
            let (pool, ran) = (Arc::clone(&pool), Arc::clone(&ran));
            tokio::spawn(async move {
                pool.run(move || {
                    ran.fetch_add(1, Ordering::SeqCst);
                    Ok(())
                })
                .await
            })
        };
        tokio::task::yield_now().await;
        abandoned.abort();
        assert!(abandoned.await.unwrap_err().is_cancelled());
        release.send(()).unwrap();
        first.await.unwrap().unwrap();
        pool.run(|| Ok(())).await.unwrap();
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
        pool.run(move || {
            EXIT.with(|exit| *exit.borrow_mut() = Some(OnExit(exited)));
            Ok(())
        })
        .await
        .unwrap();
        drop(pool);
        exits.recv_timeout(Duration::from_secs(5)).unwrap();
    }
}
