//! The promise "the page comes from this server alone": its files, their types, and what they are not allowed to do.
//! What the page does is tested in a browser, by `tests/browser/run`.

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use harness::{Server, Setup};
use reqwest::Method;
use reqwest::header::IF_NONE_MATCH;

/// The files of the page: where they are served, and their text.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    for (folder, index) in [("page", "/"), ("docs", "/docs")] {
        let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http").join(folder);
        for entry in fs::read_dir(place).expect("a folder") {
            let file = entry.expect("an entry").path();
            let name = file.file_name().expect("a name").to_string_lossy().into_owned();
            let path = if name == "index.html" { index.to_owned() } else { format!("/{folder}/{name}") };
            files.push((path, fs::read_to_string(&file).expect("text")));
        }
    }
    files.sort();
    files
}

fn type_of(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript; charset=utf-8",
        Some((_, "css")) => "text/css; charset=utf-8",
        _ => "text/html; charset=utf-8",
    }
}

#[tokio::test]
async fn every_file_is_served_with_its_type_and_the_policy_and_whoever_has_it_is_told() {
    let server = Server::start(Setup::default()).await;
    let client = server.client.as_nobody();
    for (path, text) in files() {
        let answer = client.get(&path).await;
        assert_eq!((answer.status, answer.text == text), (200, true), "{path}");
        assert_eq!(answer.header("content-type"), type_of(&path), "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache", "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("x-frame-options"), "DENY", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
        let policy = answer.header("content-security-policy");
        let said: BTreeSet<_> = policy.split(';').map(str::trim).collect();
        for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"] {
            assert!(said.contains(rule), "{path}: {policy}");
        }
        for rule in ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'", "trusted-types 'none'"] {
            assert!(said.contains(rule), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");

        let tag = answer.header("etag").to_owned();
        for known in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let request = client.request(Method::GET, &path).header(IF_NONE_MATCH, &known);
            let again = harness::Client::send(request).await;
            assert_eq!((again.status, again.text.as_str()), (304, ""), "{path} {known}");
            assert_eq!(again.header("etag"), tag);
        }
        let request = client.request(Method::GET, &path).header(IF_NONE_MATCH, "\"other\"");
        assert_eq!(harness::Client::send(request).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_is_no_file_of_the_page_is_not_found() {
    let server = Server::start(Setup::default()).await;
    for path in ["/page", "/page/", "/page/none.js", "/page/../page.rs", "/page/%2e%2e/page.rs", "/index.html"] {
        let answer = server.client.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"), "{path}");
    }
    assert_eq!(server.client.post("/", serde_json::json!({})).await.status, 405);
}

#[test]
fn no_file_loads_from_elsewhere_or_makes_html_of_text() {
    /// What makes elements or code out of a string, and what the policy would not let through.
    const FORBIDDEN: [&str; 14] = [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "DOMParser",
        "createContextualFragment",
        "setHTML",
        "eval(",
        "new Function",
        "srcdoc",
        "javascript:",
        "https://",
        "@import",
        "url(",
    ];
    let files = files();
    assert!(files.len() > 10, "the page has more files than that");
    for (path, text) in &files {
        // The name of a language for pictures is not an address that anything is loaded from.
        let text = text.replace("xmlns='http://www.w3.org/2000/svg'", "");
        for word in FORBIDDEN.iter().chain(&["http://"]) {
            assert!(!text.contains(word), "{path} has {word}");
        }
    }
}

#[test]
fn the_markup_has_no_code_and_no_style_of_its_own() {
    let pages: Vec<_> = files().into_iter().filter(|(path, _)| type_of(path).starts_with("text/html")).collect();
    assert_eq!(pages.len(), 2);
    let tags =
        pages.iter().flat_map(|(_, html)| html.split('<')).map(|rest| rest.split('>').next().unwrap_or_default());
    for tag in tags {
        let attributes = tag.split_whitespace().skip(1);
        for attribute in attributes.filter(|_| !tag.starts_with('!')) {
            assert!(!attribute.starts_with("on") && !attribute.starts_with("style="), "{tag}");
        }
        assert!(!tag.starts_with("style"), "{tag}");
        assert!(!tag.starts_with("script") || tag.contains("src=\"page/") || tag.contains("src=\"docs/"), "{tag}");
    }
}

/// Each module that is imported is one that is served.
#[test]
fn every_import_is_there() {
    let files = files();
    let served: BTreeSet<_> = files.iter().map(|(path, _)| path.as_str()).collect();
    for (path, text) in &files {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for part in text.split("from \".").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            let place = name.strip_prefix('.').map_or_else(|| format!("{folder}{name}"), str::to_owned);
            assert!(served.contains(place.as_str()), "{path} imports {place}");
        }
    }
}
