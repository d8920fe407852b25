//! The client for callers without a runtime: C, Ruby, scripts.
//!
//! A call runs on the calling thread. [`CancelToken::cancel`], from any thread or signal-handling code that may
//! lock, ends it with [`ErrorCode::Interrupted`]. Callers that must look up from time to time (Ruby, for interrupts) run a
//! call in slices: [`Operation::run_for`] and [`Wait::next_within`] return after the slice at the latest and go on where they
//! were at the next call.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

use super::{JobWait, OutputEvent, OutputStreams, Progress, Settings};
use crate::api::{Channel, JobView, NodeState, Started};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};
use crate::job::JobRequest;
use crate::output::OutputChannel;
use crate::watch::WatchOptions;

/// Ends blocking calls from outside. Clones are the same token; once cancelled it stays so.
#[derive(Debug, Clone, Default)]
pub struct CancelToken {
    inner: Arc<Cancel>,
}

#[derive(Debug, Default)]
struct Cancel {
    cancelled: AtomicBool,
    notify: Notify,
}

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }

    /// Ends every call that has this token, now and later.
    pub fn cancel(&self) {
        self.inner.cancelled.store(true, Ordering::SeqCst);
        self.inner.notify.notify_waiters();
    }

    /// Whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancelled.load(Ordering::SeqCst)
    }

    async fn cancelled(&self) {
        loop {
            let notified = self.inner.notify.notified();
            tokio::pin!(notified);
            // Registered before the flag is read: a cancel between the two is not missed.
            notified.as_mut().enable();
            if self.is_cancelled() {
                return;
            }
            notified.await;
        }
    }
}

/// A blocking client. `Sync`: calls from several threads at once are served together. Survives `fork` as
/// [`super::Client`] does; calls under way during the fork must not be touched in the child.
#[derive(Debug)]
pub struct Client {
    client: super::Client,
    runtime: Mutex<Option<(u32, Arc<Runtime>)>>,
}

impl Client {
    /// Checks the settings; opens nothing.
    ///
    /// # Errors
    /// As [`super::Client::new`].
    pub fn new(settings: Settings) -> Result<Client> {
        Ok(Client { client: super::Client::new(settings)?, runtime: Mutex::new(None) })
    }

    /// Starts a job; see [`super::Client::start_job`].
    ///
    /// # Errors
    /// As there; [`ErrorCode::Interrupted`] when cancelled, and then the job may have been started.
    pub fn start_job(&self, job: JobRequest, cancel: &CancelToken) -> Result<Started> {
        self.begin(move |client| async move { client.start_job(&job).await })?.finish(cancel)
    }

    /// Every job, oldest first.
    ///
    /// # Errors
    /// As [`super::Client::call`]; [`ErrorCode::Interrupted`].
    pub fn jobs(&self, cancel: &CancelToken) -> Result<Vec<JobView>> {
        self.begin(|client| async move { client.jobs().await })?.finish(cancel)
    }

    /// One job.
    ///
    /// # Errors
    /// As [`super::Client::call`]; [`ErrorCode::Interrupted`].
    pub fn job(&self, id: JobId, cancel: &CancelToken) -> Result<JobView> {
        self.begin(move |client| async move { client.job(&id).await })?.finish(cancel)
    }

    /// What a node's command wrote.
    ///
    /// # Errors
    /// As [`super::Client::output`]; [`ErrorCode::Interrupted`].
    pub fn output(
        &self,
        id: JobId,
        node: NodeName,
        channel: Channel,
        cancel: &CancelToken,
    ) -> Result<Vec<u8>> {
        self.begin(move |client| async move { client.output(&id, &node, channel).await })?.finish(cancel)
    }

    /// The availability of every node the server has seen.
    ///
    /// # Errors
    /// As [`super::Client::call`]; [`ErrorCode::Interrupted`].
    pub fn node_states(&self, cancel: &CancelToken) -> Result<Vec<NodeState>> {
        self.begin(|client| async move { client.node_states().await })?.finish(cancel)
    }

    /// The availability of one node.
    ///
    /// # Errors
    /// As [`super::Client::call`]; [`ErrorCode::Interrupted`].
    pub fn node_state(&self, node: NodeName, cancel: &CancelToken) -> Result<NodeState> {
        self.begin(move |client| async move { client.node_state(&node).await })?.finish(cancel)
    }

    /// Names of the nodes that a query of the Chef server finds.
    ///
    /// # Errors
    /// As [`super::Client::call`]; [`ErrorCode::Interrupted`].
    pub fn search_nodes(&self, query: String, cancel: &CancelToken) -> Result<Vec<String>> {
        self.begin(move |client| async move { client.search_nodes(&query).await })?.finish(cancel)
    }

    /// A wait for a job.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when the system refuses what a runtime needs.
    pub fn wait(&self, id: JobId, options: WatchOptions) -> Result<Wait> {
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        Ok(Wait { wait: self.client.wait(id, options), runtime: Arc::clone(&runtime) })
    }

    /// What the commands of a job print; see [`super::Client::stream_outputs`].
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when the system refuses what a runtime needs.
    pub fn stream_outputs(
        &self,
        id: &JobId,
        nodes: &[NodeName],
        channel: OutputChannel,
        follow: bool,
    ) -> Result<Outputs> {
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        let streams = self.client.stream_outputs(id, nodes, channel, follow);
        Ok(Outputs { streams, runtime: Arc::clone(&runtime) })
    }

    /// What the commands of a job print while they run; see [`super::Client::stream_live`].
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when the system refuses what a runtime needs.
    pub fn stream_live(&self, id: &JobId, nodes: &[NodeName]) -> Result<Outputs> {
        let runtime = self.runtime()?;
        let _entered = runtime.enter();
        Ok(Outputs { streams: self.client.stream_live(id, nodes), runtime: Arc::clone(&runtime) })
    }

    /// Prepares any async use of the client to be run in slices.
    ///
    /// # Errors
    /// [`ErrorCode::Internal`] when the system refuses what a runtime needs.
    pub fn begin<T, F>(&self, call: impl FnOnce(super::Client) -> F) -> Result<Operation<T>>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        Ok(Operation { future: Box::pin(call(self.client.clone())), runtime: self.runtime()? })
    }

    /// The runtime of this process. A child of a fork leaves its parent's alone: its sockets and its epoll are shared.
    fn runtime(&self) -> Result<Arc<Runtime>> {
        let mut slot = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = std::process::id();
        match slot.take() {
            Some((owner, runtime)) if owner == pid => {
                *slot = Some((pid, Arc::clone(&runtime)));
                return Ok(runtime);
            }
            Some((_, parents)) => std::mem::forget(parents),
            None => {}
        }
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|e| Error::new(ErrorCode::Internal, format!("cannot make a runtime: {e}")))?;
        let runtime = Arc::new(runtime);
        *slot = Some((pid, Arc::clone(&runtime)));
        Ok(runtime)
    }
}

impl Drop for Client {
    /// Never waits: a name look-up still under way is left behind. In a child of a fork the parent's runtime is left
    /// alone: closing it here would take the parent's sockets out of the epoll that both share.
    fn drop(&mut self) {
        let slot = self.runtime.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((owner, runtime)) = slot.take() {
            if owner != std::process::id() {
                std::mem::forget(runtime);
            } else if let Some(runtime) = Arc::into_inner(runtime) {
                runtime.shutdown_background();
            }
        }
    }
}

/// A call that can be run in slices.
pub struct Operation<T> {
    // Before the runtime: it is dropped first.
    future: Pin<Box<dyn Future<Output = Result<T>> + Send>>,
    runtime: Arc<Runtime>,
}

impl<T> std::fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Operation")
    }
}

impl<T> Operation<T> {
    /// Runs for at most `slice`. `None`: not yet done, call again. Do not call again after `Some`, unless it was the
    /// token that ended it: with another token the call goes on where it was.
    pub fn run_for(&mut self, slice: Duration, cancel: &CancelToken) -> Option<Result<T>> {
        let future = self.future.as_mut();
        self.runtime.block_on(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Some(Err(interrupted())),
                result = future => Some(result),
                () = tokio::time::sleep(slice) => None,
            }
        })
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// Those of the call; [`ErrorCode::Interrupted`].
    pub fn finish(mut self, cancel: &CancelToken) -> Result<T> {
        loop {
            if let Some(result) = self.run_for(Duration::from_secs(3600), cancel) {
                return result;
            }
        }
    }
}

/// A wait for a job that can be run in slices.
#[derive(Debug)]
pub struct Wait {
    // Before the runtime: it is dropped first.
    wait: JobWait,
    runtime: Arc<Runtime>,
}

impl Wait {
    /// The next thing to tell, within `slice`. `None`: nothing yet, call again. Cancelled:
    /// [`Progress::GivenUp`] with [`ErrorCode::Interrupted`]; the job goes on.
    pub fn next_within(&mut self, slice: Duration, cancel: &CancelToken) -> Option<Progress> {
        let wait = &mut self.wait;
        self.runtime.block_on(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Some(Progress::GivenUp(interrupted())),
                progress = wait.next() => Some(progress),
                () = tokio::time::sleep(slice) => None,
            }
        })
    }
}

/// Output of some nodes that can be read in slices.
#[derive(Debug)]
pub struct Outputs {
    // Before the runtime: it is dropped first.
    streams: OutputStreams,
    runtime: Arc<Runtime>,
}

impl Outputs {
    /// The next thing to show, within `slice`. `None`: nothing yet, call again. Cancelled: [`OutputEvent::Failed`] with
    /// [`ErrorCode::Interrupted`]; with another token it goes on where it was.
    pub fn next_within(&mut self, slice: Duration, cancel: &CancelToken) -> Option<OutputEvent> {
        let streams = &mut self.streams;
        self.runtime.block_on(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Some(OutputEvent::Failed(interrupted())),
                event = streams.next() => Some(event),
                () = tokio::time::sleep(slice) => None,
            }
        })
    }
}

fn interrupted() -> Error {
    Error::new(ErrorCode::Interrupted, "interrupted")
}
