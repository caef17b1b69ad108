//! A client of the server, over HTTP.

use anyhow::Context as _;
use serde_json::Value;
use std::time::Duration;

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    user: String,
}

impl Client {
    /// A client of the server at `url` that speaks for `user`.
    pub(super) fn new(url: String, user: &str) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("no HTTP client")?;
        Ok(Self { http, url, user: user.to_owned() })
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(self.http.get(format!("{}{path}", self.url)), path).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body), path).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str) -> anyhow::Result<Value> {
        let response = request.header("X-User-ID", &self.user).send().await;
        let response = response.with_context(|| format!("{path} was not answered"))?;
        let status = response.status();
        let body: Value = response.json().await.with_context(|| format!("{path} was not answered with JSON"))?;
        let error = body["error"].as_str().unwrap_or("no reason was given");
        anyhow::ensure!(status.is_success(), "{path} was answered with {status}: {error}");
        Ok(body)
    }
}
