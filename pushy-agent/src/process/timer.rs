//! Waits for a deadline with one wake-up.
//!
//! tokio's timer wheel wakes a program two or three times on the way to a deadline some seconds off; an agent that idles
//! on thousands of machines should not (decision 24). On Linux the kernel's timer does it.

use std::time::Duration;

use tokio::time::Instant;

/// One timer, set anew for every wait.
#[derive(Debug)]
pub(crate) struct Timer {
    #[cfg(target_os = "linux")]
    kernel: Option<tokio::io::unix::AsyncFd<KernelTimer>>,
}

/// The kernel's timer under the trait that tokio asks for.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct KernelTimer(nix::sys::timerfd::TimerFd);

#[cfg(target_os = "linux")]
impl std::os::fd::AsRawFd for KernelTimer {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsFd::as_fd(&self.0).as_raw_fd()
    }
}

impl Timer {
    /// Must be made inside of a tokio runtime.
    pub(crate) fn new() -> Timer {
        #[cfg(target_os = "linux")]
        {
            use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
            let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
            let kernel = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).ok().and_then(|timer| {
                // SAFETY: the descriptor is owned by the value, open until it is dropped, and always the same.
                unsafe { tokio::io::unix::AsyncFd::register(KernelTimer(timer)) }.ok()
            });
            Timer { kernel }
        }
        #[cfg(not(target_os = "linux"))]
        Timer {}
    }

    /// Returns at the deadline or shortly after; never without one. Cancel-safe.
    pub(crate) async fn until(&mut self, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        // Deadlines are whole milliseconds; a tick too early would be repeated at once.
        let deadline = deadline + Duration::from_millis(1);
        #[cfg(target_os = "linux")]
        if let Some(kernel) = &self.kernel {
            use nix::sys::time::{TimeSpec, TimeValLike};
            use nix::sys::timerfd::{Expiration, TimerSetTimeFlags};
            let wait = deadline.saturating_duration_since(Instant::now()).max(Duration::from_micros(1));
            let wait = TimeSpec::nanoseconds(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX));
            if kernel.get_ref().0.set(Expiration::OneShot(wait), TimerSetTimeFlags::empty()).is_ok() {
                while Instant::now() < deadline {
                    let Ok(mut ready) = kernel.readable().await else { break };
                    // What made it readable may have been an earlier setting.
                    ready.clear_ready();
                }
            }
        }
        // tokio would round a deadline that has passed up to its next millisecond.
        if Instant::now() < deadline {
            tokio::time::sleep_until(deadline).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_never_comes_early_however_often_it_is_set() {
        let mut timer = Timer::new();
        for millis in [30, 0, 5, 1, 60, 2] {
            let now = Instant::now();
            let far = timer.until(Some(now + Duration::from_secs(600)));
            assert!(tokio::time::timeout(Duration::from_millis(1), far).await.is_err(), "too early");
            let deadline = now + Duration::from_millis(millis);
            let near = timer.until(Some(deadline));
            tokio::time::timeout(Duration::from_secs(20), near).await.expect("it comes");
            assert!(Instant::now() >= deadline);
        }
    }
}
