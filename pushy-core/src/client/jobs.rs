//! Calls about jobs that take more than one question.

use super::Client;
use crate::api::{CancelJob, Cancelled, Statuses};
use crate::error::{Error, ErrorCode, Result};
use crate::ids::{JobId, NodeName};

impl Client {
    /// Cancels a job, or a part of it (decision 20). It ends when the nodes have said so or are known not to; wait for it
    /// where that matters.
    ///
    /// # Errors
    /// As [`Client::call`]; [`ErrorCode::InvalidState`] when the job has ended; [`ErrorCode::Server`] when the server knows
    /// the job but not how to cancel one, as the original.
    pub async fn cancel_job(&self, id: &JobId, nodes: Option<&[NodeName]>) -> Result<Cancelled> {
        match self.call(&CancelJob { id, nodes }).await {
            Err(error) if error.code() == ErrorCode::NotFound => match self.job(id).await {
                Ok(_) => Err(Error::new(
                    ErrorCode::Server,
                    "this push server cannot cancel jobs: the job goes on until it ends or its run_timeout is over",
                )),
                Err(error) => Err(error),
            },
            outcome => outcome,
        }
    }

    /// The names of a job's nodes in certain statuses, to start a job on them again.
    ///
    /// # Errors
    /// As [`Client::call`] and [`Statuses::nodes_of`].
    pub async fn nodes_of_job(&self, id: &JobId, statuses: &Statuses) -> Result<Vec<NodeName>> {
        statuses.nodes_of(&self.job(id).await?)
    }
}
