//! The program as its users run it, and servers that are not what it expects.

use std::ffi::OsStr;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::process::Command;

use super::harness::{OWNER, Server};

/// How the program ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub output: String,
    pub errors: String,
}

impl Ran {
    /// Each line of the output, which has to be JSON.
    pub fn lines(&self) -> Vec<Value> {
        let json = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line} is no JSON: {self:?}"));
        self.output.lines().map(json).collect()
    }

    /// The error, which has to be JSON.
    pub fn error(&self) -> Value {
        serde_json::from_str(&self.errors).unwrap_or_else(|_| panic!("no JSON on standard error: {self:?}"))
    }

    #[track_caller]
    pub fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    #[track_caller]
    pub fn said(self, wanted: &[&str]) -> Self {
        for wanted in wanted {
            assert!(self.errors.contains(wanted), "{wanted:?} is not said: {self:?}");
        }
        self
    }

    #[track_caller]
    pub fn shows(self, wanted: &[&str]) -> Self {
        for wanted in wanted {
            assert!(self.output.contains(wanted), "{wanted:?} is not shown: {self:?}");
        }
        self
    }
}

pub fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rephase"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    for name in ["REPHASE_URL", "REPHASE_USER", "REPHASE_TOKEN", "NO_COLOR", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

pub async fn end(mut command: Command) -> Ran {
    let output = command.output().await.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    let code = output.status.code().expect("it ends by itself");
    Ran { code, output: text(output.stdout), errors: text(output.stderr) }
}

/// The program with these arguments, and nothing in its environment.
pub async fn bare<S: AsRef<OsStr>>(arguments: &[S]) -> Ran {
    end(command(arguments)).await
}

/// The program as a user of the server at `url`.
pub struct User {
    pub url: String,
}

impl User {
    pub fn of(server: &Server) -> Self {
        Self { url: format!("http://{}", server.app.address()) }
    }

    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = command(arguments);
        command.env("REPHASE_URL", &self.url).env("REPHASE_USER", OWNER);
        command
    }

    pub async fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        end(self.command(arguments)).await
    }
}

/// Requests as they came, whole.
pub type Seen = Arc<Mutex<Vec<String>>>;

pub fn seen(requests: &Seen) -> Vec<String> {
    requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A server that answers the nth request with what `answer` makes of it; nothing is a connection that is lost.
pub async fn stranger(answer: impl Fn(usize) -> Option<String> + Send + 'static) -> (User, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let requests = Seen::default();
    let noted = Arc::clone(&requests);
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((connection, _)) = listener.accept().await else { return };
            serve(connection, &noted, answer(number)).await;
        }
    });
    (User { url }, requests)
}

/// Reads one request, notes it, and answers.
pub async fn serve(mut connection: impl AsyncRead + AsyncWrite + Unpin, noted: &Seen, answer: Option<String>) {
    let mut request = Vec::new();
    while !is_whole(&request) {
        let mut part = [0; 4_096];
        match connection.read(&mut part).await {
            Ok(size) if size > 0 => request.extend_from_slice(&part[..size]),
            _ => return,
        }
    }
    noted.lock().unwrap_or_else(PoisonError::into_inner).push(String::from_utf8_lossy(&request).into_owned());
    if let Some(answer) = answer {
        // Whoever asked may have gone away.
        let _ = connection.write_all(answer.as_bytes()).await;
        let _ = connection.shutdown().await;
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    body.len() >= header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0)
}

/// A header of a request.
pub fn header(request: &str, name: &str) -> Option<String> {
    let lines = request.lines().take_while(|line| !line.is_empty());
    let mut named = lines.filter_map(|line| line.split_once(": "));
    named.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
}

/// An answer, as it is on the wire.
pub fn answer(status: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    let size = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-length: {size}\r\nconnection: close\r\n{headers}\r\n{body}")
}
