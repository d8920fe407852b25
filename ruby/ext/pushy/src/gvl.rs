//! Work without Ruby's global lock that Ctrl-C, `Timeout` and `Thread#kill` can end.
//!
//! The only file of the gem with `unsafe`. The lock is given up for slices of [`SLICE`]: Ruby 3.1 does not always
//! wake a waiting thread for a signal that the process sends itself, and a slice bounds how late it is noticed.

use std::any::Any;
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use magnus::Ruby;
use pushy_core::client::blocking::CancelToken;

use crate::error;

/// The longest time between two looks at Ruby's pending interrupts.
const SLICE: Duration = Duration::from_millis(200);

/// What crosses to the far side of the lock and back. Held by the waiting frame, borrowed by the callback.
struct Slice<'a, W, T> {
    work: &'a mut W,
    /// Cancelled when Ruby wants this thread back.
    wanted: &'a CancelToken,
    /// `None`: Ruby did not start the slice, an interrupt was pending already.
    /// `Some(Ok(None))`: the slice is over, the work is not.
    outcome: Option<std::thread::Result<Option<T>>>,
}

/// Runs `work` with the global lock released until it has an answer.
///
/// `work` gets the length of a slice and a token; it must return `None` once the slice is over or the token cancelled,
/// and go on where it was when it is called again. `Send` keeps Ruby values out: they must not be touched over there.
///
/// # Errors
/// The exception that Ruby wants raised in this thread (`Interrupt`, `Timeout::Error`, a kill). A signal whose handler
/// returns does not end the wait: the same work goes on. A panic becomes `Pushy::InternalError`.
pub(crate) fn without_gvl<W, T>(ruby: &Ruby, mut work: W) -> Result<T, magnus::Error>
where
    W: FnMut(Duration, &CancelToken) -> Option<T> + Send,
    T: Send,
{
    loop {
        let wanted = CancelToken::new();
        let mut slice = Slice { work: &mut work, wanted: &wanted, outcome: None };
        // SAFETY: `slice` and `wanted` outlive the call, which returns only after `run` has, and Ruby calls `wake` only
        // during it. The variant with a 2 never raises, so no Rust frame is jumped over. `run` touches no Ruby value:
        // `work` is Send.
        unsafe {
            rb_sys::rb_thread_call_without_gvl2(
                Some(run::<W, T>),
                ptr::from_mut(&mut slice).cast(),
                Some(wake),
                ptr::from_ref(&wanted).cast_mut().cast(),
            );
        }
        match slice.outcome {
            Some(Ok(Some(answer))) => return Ok(answer),
            Some(Err(panic)) => return Err(error::internal(ruby, panic_text(panic.as_ref()))),
            Some(Ok(None)) | None => check_interrupts()?,
        }
    }
}

/// One slice, on this thread, without the lock.
unsafe extern "C" fn run<W, T>(slice: *mut c_void) -> *mut c_void
where
    W: FnMut(Duration, &CancelToken) -> Option<T> + Send,
{
    // SAFETY: the pointer is the `Slice<W, T>` of `without_gvl`, borrowed by nobody else while Ruby is in this call.
    let slice = unsafe { &mut *slice.cast::<Slice<'_, W, T>>() };
    // A panic must not cross Ruby's C frames.
    slice.outcome = Some(catch_unwind(AssertUnwindSafe(|| (slice.work)(SLICE, slice.wanted))));
    ptr::null_mut()
}

/// Called by Ruby, from any thread, when it wants the waiting thread back.
unsafe extern "C" fn wake(wanted: *mut c_void) {
    // SAFETY: the pointer is the token of `without_gvl`, which outlives the call that Ruby interrupts.
    unsafe { &*wanted.cast::<CancelToken>() }.cancel();
}

/// Runs signal handlers and raises what other threads have asked for.
fn check_interrupts() -> Result<(), magnus::Error> {
    magnus::rb_sys::protect(|| {
        // SAFETY: called with the lock held, inside `protect`, which catches the jump.
        unsafe { rb_sys::rb_thread_check_ints() };
        rb_sys::Qnil as rb_sys::VALUE
    })
    .map(|_| ())
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no description")
}
