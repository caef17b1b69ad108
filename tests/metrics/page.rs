//! The text of `/metrics`, read, and the names in an expression about it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::harness::{Client, PATIENCE};

type Labels = BTreeMap<String, String>;

/// What `/metrics` says.
#[derive(Debug, Clone)]
pub struct Page {
    pub text: String,
    samples: Vec<(String, Labels, f64)>,
}

/// The metrics now.
pub async fn scrape(client: &Client) -> Page {
    let answer = client.as_nobody().get("/metrics").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let samples = answer.text.lines().filter(|line| !line.starts_with('#')).map(sample).collect();
    Page { text: answer.text, samples }
}

/// The metrics once they are as wanted.
pub async fn scrape_until(client: &Client, is_there: impl Fn(&Page) -> bool) -> Page {
    let began = Instant::now();
    loop {
        let page = scrape(client).await;
        if is_there(&page) {
            return page;
        }
        assert!(began.elapsed() < PATIENCE, "{}", page.text);
        tokio::task::yield_now().await;
    }
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (what, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = selector(what);
    (name, labels, value.parse().expect("a number"))
}

/// A name and the labels behind it, as `name{label="value"}`.
fn selector(text: &str) -> (String, Labels) {
    let Some((name, labels)) = text.split_once('{') else { return (text.to_owned(), Labels::new()) };
    let labels = labels.strip_suffix('}').expect("a brace");
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").expect("a label");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    };
    (name.to_owned(), labels.split("\",").map(pair).collect())
}

impl Page {
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|(known, ..)| known == name)
    }

    /// The sum of all samples of this name that have these labels: `name{label="value"}`.
    pub fn value(&self, what: &str) -> f64 {
        let (name, labels) = selector(what);
        let fits = |known: &Labels| labels.iter().all(|(label, value)| known.get(label) == Some(value));
        self.samples.iter().filter(|(known, all, _)| *known == name && fits(all)).map(|(.., value)| value).sum()
    }

    /// The values of `label` among the samples of this name.
    pub fn values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let of_name = self.samples.iter().filter(|(known, ..)| known == name);
        of_name.filter_map(|(_, labels, _)| labels.get(label).cloned()).collect()
    }

    pub fn lines(&self) -> usize {
        self.text.lines().count()
    }

    pub fn families(&self) -> Vec<String> {
        let types = self.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        types.map(|line| line.split(' ').next().expect("a name").to_owned()).collect()
    }
}

/// The metrics that an expression names, each with the labels that it is selected by. All begin with what this server's
/// and the process's begin with.
pub fn names_in(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(start) = rest.find(is_part) {
        rest = &rest[start..];
        let end = rest.find(|character| !is_part(character)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        rest = behind;
        if name.starts_with("rephase_") || name.starts_with("process_") {
            let labels =
                behind.strip_prefix('{').and_then(|labels| labels.split_once('}')).map_or("", |(labels, _)| labels);
            let labels =
                labels.split(',').filter_map(|pair| pair.split_once(['=', '!']).map(|(label, _)| label.to_owned()));
            found.push((name.to_owned(), labels.collect()));
        }
    }
    found
}
