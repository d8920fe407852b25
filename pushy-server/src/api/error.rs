//! Every failure of a request → status, body and headers (2.3; the texts in place of HTML are decision 18's).

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use pushy_core::auth::AuthError;
use pushy_core::job::InvalidJob;
use serde_json::json;

use crate::principals::Unanswered;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No such path, or no such thing.
    NotFound,
    /// The method is none of HTTP's that the server knows.
    UnknownMethod,
    /// The resource does not take the method; the value of `Allow`.
    MethodNotAllowed(&'static str),
    /// The client takes no form that the resource has.
    NotAcceptable,
    /// The body is not said to be JSON.
    UnsupportedMediaType,
    /// The body is longer than 1,000,000 bytes.
    TooLarge,
    /// The body does not arrive.
    Slow,
    /// The body of a job request is refused (2.5).
    InvalidJob(InvalidJob),
    /// A query parameter cannot be used; says which and what it may be (400).
    BadQuery(String),
    /// A configuration request without a key (400).
    MissingKey,
    /// The key of a configuration request cannot be used (401).
    BadKey,
    /// A node asked for another's configuration (403).
    NotItself,
    /// Refused with this status and text.
    Refused(StatusCode, String),
    /// The same of a resource of our own: the text stands by itself, not in a list.
    Told(StatusCode, String),
    /// Not authenticated, not allowed, or no such organization.
    Auth(AuthError),
    /// The Chef server behind this one cannot be asked (502).
    BadGateway(String),
    /// The server cannot do it now (503).
    Unavailable(String),
    /// A defect or a failing store; the text goes to the log, a number to the client (500).
    Internal(String),
}

impl Failure {
    /// The answer. `request` is what the log calls the request.
    pub(crate) fn response(self, request: u64) -> Response<Body> {
        let listed = |text: String| json!({ "error": [text] });
        let text = |status: StatusCode, text: &str| (status, listed(text.to_owned()), None);
        let (status, body, extra) = match self {
            Failure::NotFound => text(StatusCode::NOT_FOUND, "not found"),
            Failure::UnknownMethod => text(StatusCode::NOT_IMPLEMENTED, "not implemented"),
            Failure::MethodNotAllowed(allow) => (
                StatusCode::METHOD_NOT_ALLOWED,
                listed("method not allowed".into()),
                Some((header::ALLOW, HeaderValue::from_static(allow))),
            ),
            Failure::NotAcceptable => text(StatusCode::NOT_ACCEPTABLE, "not acceptable"),
            Failure::UnsupportedMediaType => {
                text(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported media type")
            }
            Failure::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                json!({ "error": "JSON must be no more than 1000000 bytes." }),
                None,
            ),
            Failure::Slow => text(StatusCode::REQUEST_TIMEOUT, "request timeout"),
            Failure::InvalidJob(why) => return super::json_response(StatusCode::BAD_REQUEST, why.body()),
            Failure::BadQuery(why) => text(StatusCode::BAD_REQUEST, &why),
            Failure::MissingKey => text(StatusCode::BAD_REQUEST, "Missing ccpk"),
            Failure::BadKey => text(StatusCode::UNAUTHORIZED, "Bad ccpk"),
            Failure::NotItself => text(StatusCode::FORBIDDEN, "Client and node name must match"),
            Failure::Refused(status, why) => text(status, &why),
            Failure::Told(status, why) => (status, json!({ "error": why }), None),
            Failure::Auth(error) => {
                let status =
                    StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = super::json_response(status, error.body());
                if let Some(value) = error.www_authenticate() {
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(value));
                }
                return response;
            }
            Failure::BadGateway(why) => text(StatusCode::BAD_GATEWAY, &why),
            Failure::Unavailable(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
            Failure::Internal(why) => {
                tracing::error!(request, "request failed: {why}");
                text(StatusCode::INTERNAL_SERVER_ERROR, &format!("internal error, see the log: {request}"))
            }
        };
        let mut response = super::json_response(status, body.to_string());
        if let Some((name, value)) = extra {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Failure {
        Failure::Auth(error)
    }
}

impl From<Unanswered> for Failure {
    fn from(why: Unanswered) -> Failure {
        match why {
            Unanswered::Refused(error) => Failure::Auth(error),
            Unanswered::BadGateway(text) => Failure::BadGateway(text),
            Unanswered::Unavailable(text) => Failure::Unavailable(text),
        }
    }
}
