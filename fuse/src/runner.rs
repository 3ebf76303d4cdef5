//! Where the work of a request runs: first on the kernel's own thread, then, if it takes long, elsewhere.
//!
//! A hand-over to another thread costs more than most requests take. So the thread that read the request drives its
//! future by itself; what is not done within [`PATIENCE`] (a cold read, a full disk, no leader) moves to the runtime, and
//! the thread takes the next request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use curvine_actors::kit::Clock;
use tokio::runtime::Handle;

/// Longer than a request takes that meets no obstacle, a durable commit included.
const PATIENCE: Duration = Duration::from_millis(2);

/// Runs the work of requests. Cheap to clone.
#[derive(Clone)]
pub struct Runner {
    runtime: Handle,
    clock: Arc<dyn Clock>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

impl Runner {
    pub fn new(runtime: Handle, clock: Arc<dyn Clock>) -> Self {
        Runner { runtime, clock }
    }

    /// Runs the work to its end, here for a while and then in the background.
    pub fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
        let until = self.clock.now() + PATIENCE;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = Context::from_waker(&waker);
        {
            // Timers and tasks that the work starts belong to the runtime.
            let _entered = self.runtime.enter();
            loop {
                if let Poll::Ready(()) = work.as_mut().poll(&mut context) {
                    return;
                }
                let left = until.saturating_duration_since(self.clock.now());
                if left.is_zero() {
                    break;
                }
                thread::park_timeout(left);
            }
        }
        self.runtime.spawn(work);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use curvine_actors::kit::ports::SystemClock;
    use tokio::sync::oneshot;

    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime")
    }

    #[test]
    fn quick_work_ends_on_the_calling_thread() {
        let runtime = runtime();
        let (tell, told) = sync_channel(1);
        Runner::new(runtime.handle().clone(), Arc::new(SystemClock)).run(async move {
            tokio::task::yield_now().await;
            tell.send(thread::current().id()).expect("somebody listens");
        });
        assert_eq!(told.try_recv(), Ok(thread::current().id()));
    }

    #[test]
    fn work_that_waits_does_not_hold_the_calling_thread() {
        let runtime = runtime();
        let (tell, told) = sync_channel(1);
        let (go, gone) = oneshot::channel();
        Runner::new(runtime.handle().clone(), Arc::new(SystemClock)).run(async move {
            gone.await.expect("it is sent");
            tell.send(thread::current().id()).expect("somebody listens");
        });
        assert!(told.try_recv().is_err(), "it waits for us");
        go.send(()).expect("the work waits");
        let thread = told
            .recv_timeout(Duration::from_secs(10))
            .expect("it goes on elsewhere");
        assert_ne!(thread, thread::current().id());
    }
}
