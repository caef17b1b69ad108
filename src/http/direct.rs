//! Requests without a connection.

use axum::body::Body;
use axum::http::Request;
use bytes::Bytes;
use http_body_util::BodyExt as _;

use super::Front;

/// The answer to a request.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Bytes,
}

impl Front {
    /// Sends a request of `user` straight to the router, and reads the answer to its end.
    ///
    /// # Errors
    /// Where method or path are none, or the answer breaks off, in words for people.
    pub async fn send(&self, method: &str, path: &str, user: &str, body: Vec<u8>) -> Result<Answered, String> {
        let request = Request::builder().method(method).uri(path).header("X-User-ID", user).body(Body::from(body));
        let response = self.serve(request.map_err(|error| error.to_string())?).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?;
        Ok(Answered { status, body: body.to_bytes() })
    }
}
