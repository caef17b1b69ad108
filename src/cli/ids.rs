//! Ids may be shortened: to a beginning that only one of the listed things has.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::client::{Client, Members};
use super::failure::{Exit, Failure};
use super::values::list;

/// From how many characters on a beginning is looked for.
const MIN_CHARS: usize = 4;

/// How many pages of a listing are looked through, and how long each is.
const MAX_PAGES: usize = 50;
const PAGE: &str = "200";

/// How many pages are asked for at the most, and so how many of what comes after one are kept.
const MAX_CURSORS: usize = 10_000;

/// How many are named where a beginning fits several.
const MAX_NAMED: usize = 5;

/// Something with an id, and where it is listed.
pub(super) struct Kind {
    name: &'static str,
    path: &'static str,
    members: &'static str,
    /// What a page of the listing has.
    page: Members,
    id: &'static str,
    /// The arguments of the command that lists them.
    listed_by: &'static str,
}

pub(super) const BATCH: Kind = Kind {
    name: "batch",
    path: "/v1/batches",
    members: "batches",
    page: &[("batches", Value::is_array)],
    id: "batch_id",
    listed_by: "batch list",
};

pub(super) const RETRY_JOB: Kind = Kind {
    name: "retry job",
    path: "/v1/retry-jobs",
    members: "jobs",
    page: &[("jobs", Value::is_array)],
    id: "job_id",
    listed_by: "retry-job list",
};

pub(super) const DEAD_LETTER: Kind = Kind {
    name: "dead letter",
    path: "/internal/v1/dead-letters",
    members: "dead_letters",
    page: &[("dead_letters", Value::is_array)],
    id: "id",
    listed_by: "dead-letter list",
};

impl Kind {
    /// The id that `text` is, or is the beginning of.
    pub(super) async fn resolve(&self, client: &Client, text: &str) -> Result<String, Failure> {
        let text = text.trim().to_ascii_lowercase();
        if let Ok(id) = Uuid::try_parse(&text) {
            return Ok(id.to_string());
        }
        let is_beginning = text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let listed = client.command(self.listed_by);
        if !is_beginning || text.len() < MIN_CHARS {
            let hint = format!("an id, or at least {MIN_CHARS} characters of its beginning; `{listed}` shows them");
            return Err(Failure::usage(format!("'{text}' is not the id of a {}", self.name)).hint(hint));
        }
        let mut found = self.find(client, &text).await?;
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => {
                let failure = Failure::new(Exit::NotFound, format!("no {} listed begins with '{text}'", self.name));
                Err(failure.hint(format!("`{listed}` shows what there is")))
            }
            count => {
                found.truncate(MAX_NAMED);
                let message = format!("{count} or more begin with '{text}', as {}", found.join(", "));
                Err(Failure::usage(message).hint("give more of the id"))
            }
        }
    }

    /// Those that begin with `text`, as far as it takes to tell that there are several.
    async fn find(&self, client: &Client, text: &str) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let mut query = vec![("limit", PAGE.to_owned())];
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let page = client.query(self.path, &query, self.page).await?;
            let ids = list(&page[self.members]).iter().filter_map(|member| member[self.id].as_str());
            found.extend(ids.filter(|id| id.starts_with(text)).map(str::to_owned));
            cursor = page["next_cursor"].as_str().map(str::to_owned);
            if cursor.is_none() || found.len() > 1 {
                break;
            }
        }
        Ok(found)
    }

    /// What to say where there is no such thing.
    pub(super) fn missing(&self, client: &Client, failure: Failure) -> Failure {
        failure.hint_where(Exit::NotFound, format!("`{}` shows what there is", client.command(self.listed_by)))
    }
}

/// Pages of a listing, each handed to `show` member by member, up to `limit` of them. Answers whether there are more.
pub(super) async fn pages(
    client: &Client,
    kind: &Kind,
    mut query: Vec<(&str, String)>,
    limit: usize,
    mut show: impl FnMut(&Value) -> bool,
) -> Result<bool, Failure> {
    let fixed = query.len();
    let (mut left, mut cursors) = (limit, HashSet::new());
    loop {
        query.push(("limit", left.min(200).to_string()));
        let page = client.query(kind.path, &query, kind.page).await?;
        for member in list(&page[kind.members]) {
            if !show(member) {
                return Ok(false);
            }
            left = left.saturating_sub(1);
        }
        let Some(cursor) = page["next_cursor"].as_str() else { return Ok(false) };
        if left == 0 {
            return Ok(true);
        }
        if cursors.len() >= MAX_CURSORS || !cursors.insert(cursor.to_owned()) {
            let failure = Failure::new(Exit::Unreachable, "the pages of the list do not come to an end");
            return Err(failure.hint("is this a server of rephase?"));
        }
        query.truncate(fixed);
        query.push(("cursor", cursor.to_owned()));
    }
}
