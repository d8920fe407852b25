//! Answers that are read while they come.

use http_body_util::BodyExt as _;
use hyper::body::{Bytes, Incoming};

use super::connection::{Sender, broken};
use super::url::Origin;
use super::{Client, Failure, Try};
use crate::api;

/// An answer of which the head is here.
pub(super) struct Stream {
    pub(super) status: u16,
    pub(super) headers: hyper::HeaderMap,
    body: Incoming,
    server: Origin,
    /// The connection, which lives as long as the answer is wanted.
    _sender: Sender,
}

impl Stream {
    /// The next bytes; `None` at the end that HTTP gives it. Cancel-safe. There is no bound on the server's silence here:
    /// the caller knows how much of it is natural.
    ///
    /// # Errors
    /// The connection broke before the end.
    pub(super) async fn next(&mut self) -> Try<Option<Bytes>> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(error)) => return Err(broken(&self.server, &error)),
            }
        }
    }
}

impl Client {
    /// Sends a request on a connection of its own, which the answer keeps as long as it lasts. Every status is an answer,
    /// redirects too.
    pub(super) async fn open_stream(&self, request: &api::Request) -> Try<Stream> {
        let shared = &*self.shared;
        let url = shared.base.join(&request.path, &request.query);
        let proxy = shared.settings.proxy.choose(&url.origin).map_err(|e| Failure::unsent(e, false))?;
        let mut sender = self.connect(&url, proxy.as_ref()).await?;
        let outgoing = self.outgoing(request, &url, proxy.as_ref())?;
        let answer = sender.send_request(outgoing).await.map_err(|e| broken(&url.origin, &e))?;
        let (head, body) = answer.into_parts();
        Ok(Stream {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
            server: url.origin,
            _sender: sender,
        })
    }
}
