//! The page for people: its files, as they lie below `page/`, are part of the program.
//!
//! The page is a client like any other: all that it shows and does goes through the routes of the API. It loads nothing
//! from elsewhere, and no text of a batch can become a part of it: the policy that comes with it forbids scripts and
//! styles that are not files of its own, and making elements out of strings.

use std::sync::LazyLock;

use axum::Router;
use axum::body::Bytes;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::Gateway;

/// What the page may do: load its own files, and ask this server. `data:` is for the icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The type of a document for programs.
pub(super) const JSON: &str = "application/json";

/// Something that stays the same for as long as the program runs, and its tag, so that whoever has it is told so.
pub(super) struct File {
    content_type: &'static str,
    body: Bytes,
    tag: HeaderValue,
}

/// A file of the page.
struct Asset {
    path: &'static str,
    file: LazyLock<File, fn() -> File>,
}

/// The files: where each is served, its type, and where it lies.
macro_rules! assets {
    ($($path:literal, $content_type:ident, $file:literal;)+) => {
        [$(Asset {
            path: $path,
            file: LazyLock::new(|| File::new($content_type, Bytes::from_static(include_bytes!($file)))),
        },)+]
    };
}

static ASSETS: [Asset; 34] = assets! {
    "/", HTML, "page/index.html";
    "/page/style.css", CSS, "page/style.css";
    "/page/views.css", CSS, "page/views.css";
    "/page/api.js", SCRIPT, "page/api.js";
    "/page/app.js", SCRIPT, "page/app.js";
    "/page/bar.js", SCRIPT, "page/bar.js";
    "/page/batch.js", SCRIPT, "page/batch.js";
    "/page/bulk.js", SCRIPT, "page/bulk.js";
    "/page/cancel.js", SCRIPT, "page/cancel.js";
    "/page/codes.js", SCRIPT, "page/codes.js";
    "/page/curl.js", SCRIPT, "page/curl.js";
    "/page/dialog.js", SCRIPT, "page/dialog.js";
    "/page/dom.js", SCRIPT, "page/dom.js";
    "/page/empty.js", SCRIPT, "page/empty.js";
    "/page/filters.js", SCRIPT, "page/filters.js";
    "/page/grid.js", SCRIPT, "page/grid.js";
    "/page/identity.js", SCRIPT, "page/identity.js";
    "/page/jobs.js", SCRIPT, "page/jobs.js";
    "/page/letters.js", SCRIPT, "page/letters.js";
    "/page/list.js", SCRIPT, "page/list.js";
    "/page/live.js", SCRIPT, "page/live.js";
    "/page/poll.js", SCRIPT, "page/poll.js";
    "/page/retry.js", SCRIPT, "page/retry.js";
    "/page/row.js", SCRIPT, "page/row.js";
    "/page/rows.js", SCRIPT, "page/rows.js";
    "/page/timeline.js", SCRIPT, "page/timeline.js";
    "/page/words.js", SCRIPT, "page/words.js";
    "/docs", HTML, "docs/index.html";
    "/docs/docs.css", CSS, "docs/docs.css";
    "/docs/docs.js", SCRIPT, "docs/docs.js";
    "/docs/known.js", SCRIPT, "docs/known.js";
    "/docs/operation.js", SCRIPT, "docs/operation.js";
    "/docs/schema.js", SCRIPT, "docs/schema.js";
    "/docs/send.js", SCRIPT, "docs/send.js";
};

fn tag_of(body: &[u8]) -> HeaderValue {
    let digest = hex::encode(Sha256::digest(body));
    // Hexadecimal digits are fit for a header; a file without a tag is only fetched more often.
    HeaderValue::try_from(format!("\"{}\"", &digest[..32])).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// The routes of the page. They answer while the store is still being opened, too.
pub(super) fn routes() -> Router<Gateway> {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move |headers: HeaderMap| async move { asset.file.serve(&headers) }))
    })
}

impl File {
    pub(super) fn new(content_type: &'static str, body: Bytes) -> Self {
        let tag = tag_of(&body);
        Self { content_type, body, tag }
    }

    /// The file, or that it is the one that whoever asks has.
    pub(super) fn serve(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
        let mut known = known.flat_map(|tags| tags.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
        let is_known = known.any(|tag| tag == "*" || tag.as_bytes() == self.tag.as_bytes());
        let mut response =
            if is_known { StatusCode::NOT_MODIFIED.into_response() } else { self.body.clone().into_response() };
        let text = HeaderValue::from_static;
        let fixed = [
            (CONTENT_TYPE, text(self.content_type)),
            (ETAG, self.tag.clone()),
            // Its paths stay the same when the program is another, so it is asked for anew each time.
            (CACHE_CONTROL, text("no-cache")),
            (CONTENT_SECURITY_POLICY, text(POLICY)),
            (X_CONTENT_TYPE_OPTIONS, text("nosniff")),
            (X_FRAME_OPTIONS, text("DENY")),
            (REFERRER_POLICY, text("no-referrer")),
        ];
        for (name, value) in fixed {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
