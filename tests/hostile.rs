//! The promise "whoever misbehaves gets a clear answer and costs nobody else anything": large, deep, broken, slow, silent
//! and many.

mod harness;

use std::net::SocketAddr;
use std::time::Duration;

use harness::{Client, PATIENCE, Server, Setup};
use rephase::app::Limits;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A time that is over before anybody has waited for it, and one that no test lives to see the end of.
const SOON: Duration = Duration::from_millis(200);
const NEVER: Duration = Duration::from_hours(1);

async fn start(limits: Limits) -> (Server, SocketAddr) {
    let server = Server::start(Setup { limits, ..Setup::default() }).await;
    let address = server.app.address();
    (server, address)
}

/// No connection ends by itself, so that a test which waits for an end has caused it.
fn patient() -> Limits {
    Limits { head: NEVER, body: NEVER, unread: NEVER, ..Limits::default() }
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("it accepts")
}

/// All that is sent until the connection ends.
async fn until_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    ended.expect("the connection ends").expect("it ends cleanly");
    String::from_utf8(bytes).expect("text")
}

/// One answer with a body, on a connection that may go on: status, head, body.
async fn one_answer(stream: &mut TcpStream) -> (u16, String, Value) {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4_096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut part)).await;
        let read = read.expect("it answers").expect("it can be read");
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
            let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
            if body.len() >= length {
                let status = head[9..12].parse().expect("a status");
                let start = bytes.len() - body.len();
                let json = serde_json::from_slice(&bytes[start..start + length]).expect("JSON");
                return (status, head.to_owned(), json);
            }
        }
        assert_ne!(read, 0, "it ended within an answer: {text}");
    }
}

fn assert_problem(answer: &(u16, String, Value), status: u16, code: &str) {
    let (found, head, body) = answer;
    assert_eq!((*found, body["error_code"].as_str()), (status, Some(code)), "{head}\n{body}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    assert!(body["error"].as_str().is_some_and(|error| !error.is_empty()), "{body}");
    let correlation_id = body["correlation_id"].as_str().expect("an id");
    assert!(head.contains(&format!("x-correlation-id: {correlation_id}")), "{head}");
}

async fn answers_others(client: &Client) {
    assert_eq!(client.get("/readyz").await.status, 200);
    client.registered_batch(1).await;
}

/// Sends on while the other side takes it; how many bytes it took.
async fn send_much(mut half: tokio::net::tcp::OwnedWriteHalf, bytes: usize) -> usize {
    let part = vec![b'x'; 64 * 1_024];
    let mut sent = 0;
    while sent < bytes {
        match half.write(&part).await {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    sent
}

#[tokio::test]
async fn a_body_of_100_mb_is_refused_and_the_refusal_can_be_read() {
    let (server, address) = start(patient()).await;
    let many = 100 * 1_024 * 1_024;
    for framing in [format!("Content-Length: {many}"), "Transfer-Encoding: chunked".to_owned()] {
        for path in ["/v1/batches/register", "/v1/batches/x/essays"] {
            let mut stream = connect(address).await;
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nX-User-ID: a\r\n{framing}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("sent");
            if framing.ends_with("chunked") {
                stream.write_all(format!("{many:x}\r\n").as_bytes()).await.expect("sent");
            }
            let (mut reading, writing) = stream.into_split();
            let sending = tokio::spawn(send_much(writing, many));
            let mut bytes = Vec::new();
            // A client that only reads when it has sent everything finds the answer all the same.
            let sent = sending.await.expect("it ends");
            // More than the server reads as a body and what both systems buffer: it went on taking what it had refused.
            assert!(sent >= 40 * 1_024 * 1_024, "{framing}: cut after {sent} bytes");
            reading.read_to_end(&mut bytes).await.expect("it ends cleanly");
            let text = String::from_utf8(bytes).expect("text");
            assert!(text.starts_with("HTTP/1.1 413 ") && text.contains("PAYLOAD_TOO_LARGE"), "{framing}: {text}");
        }
    }
    answers_others(&server.client).await;
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_ends() {
    let (server, address) = start(patient()).await;
    let many = (0..10_000).map(|number| format!("X-{number}: y")).collect::<Vec<_>>().join("\r\n") + "\r\n";
    let large = format!("X-Large: {}\r\n", "y".repeat(1_024 * 1_024));
    for (request, status) in [
        (format!("GET /livez HTTP/1.1\r\n{many}\r\n"), 431),
        (format!("GET /livez HTTP/1.1\r\n{large}\r\n"), 431),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "y".repeat(100_000)), 414),
        ("GET /livez HTTP/1.1\r\nbroken header\r\n\r\n".to_owned(), 400),
        ("GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("\u{16}\u{3}\u{1} this would be TLS\r\n\r\n".to_owned(), 400),
        ("POST /livez HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(), 400),
    ] {
        let mut stream = connect(address).await;
        stream.write_all(request.as_bytes()).await.expect("all of it is taken");
        let text = until_end(&mut stream).await;
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{}: {text}", &request[..40.min(request.len())]);
    }
    answers_others(&server.client).await;
}

#[tokio::test]
async fn invalid_text_and_deep_json_are_problems_and_the_connection_goes_on() {
    let (server, address) = start(patient()).await;
    let mut stream = connect(address).await;
    let deep = "[".repeat(100_000);
    let deeper = format!("{{\"student_prompt_ref\": {}1{}}}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    let post = |headers: &str, body: &[u8]| {
        let head = format!(
            "POST /v1/batches/register HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), body].concat()
    };
    let get = |path: &[u8]| [b"GET ", path, b" HTTP/1.1\r\nX-User-ID: a\r\n\r\n"].concat();
    let bad = [b"X-User-ID: \xff\xfe\r\n".as_slice(), b"Content-Length: 2\r\n\r\n{}"].concat();
    for (request, status, code) in [
        (post("X-User-ID: a\r\n", deep.as_bytes()), 400, "INVALID_REQUEST"),
        (post("X-User-ID: a\r\n", deeper.as_bytes()), 400, "INVALID_REQUEST"),
        (post("X-User-ID: a\r\n", b"{\"course_code\": \"\xff\"}"), 400, "INVALID_REQUEST"),
        // In a text that nobody asks for.
        (
            b"POST /v1/batches/x/cancel HTTP/1.1\r\nX-User-ID: a\r\nContent-Length: 9\r\n\r\n{\"x\":\"\xff\"}".to_vec(),
            400,
            "INVALID_REQUEST",
        ),
        (get(b"/v1/batches/%ff%fe/status"), 400, "INVALID_REQUEST"),
        (get(b"/v1/batches/\xc3\xa9/status"), 404, "RESOURCE_NOT_FOUND"),
        (get(b"/v1/batches?cursor=%ff"), 400, "VALIDATION_ERROR"),
        (get(b"/v1/batches?limit=99999999999999999999999"), 400, "VALIDATION_ERROR"),
        ([b"POST /v1/batches/register HTTP/1.1\r\n".as_slice(), &bad].concat(), 400, "INVALID_REQUEST"),
    ] {
        stream.write_all(&request).await.expect("taken");
        assert_problem(&one_answer(&mut stream).await, status, code);
    }
    answers_others(&server.client).await;
}

#[tokio::test]
async fn chunked_bodies_and_pipelined_requests_are_understood() {
    let (server, address) = start(patient()).await;
    let mut stream = connect(address).await;
    let body = harness::registration(1).to_string();
    let chunks = body.chars().map(|character| format!("1\r\n{character}\r\n")).collect::<Vec<_>>().concat();
    let request = format!(
        "POST /v1/batches/register HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("taken");
    assert_eq!(one_answer(&mut stream).await.0, 202);

    let many = "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200)
        + "GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n";
    stream.write_all(many.as_bytes()).await.expect("taken");
    assert_eq!(until_end(&mut stream).await.matches("HTTP/1.1 200 OK").count(), 201);
    answers_others(&server.client).await;
}

#[tokio::test]
async fn a_client_that_sends_a_head_byte_by_byte_or_nothing_loses_its_connection() {
    let (server, address) = start(Limits { head: SOON, ..patient() }).await;
    let mut silent = connect(address).await;
    let mut kept = connect(address).await;
    kept.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.expect("taken");
    let (mut reading, mut writing) = connect(address).await.into_split();
    let drip = tokio::spawn(async move {
        writing.write_all(b"GET /livez HTTP/1.1\r\nX-Slow: ").await.expect("taken");
        // Quick enough never to be idle for long.
        let mut tick = tokio::time::interval(SOON / 20);
        while writing.write_all(b"y").await.is_ok() {
            tick.tick().await;
        }
    });
    assert_eq!(until_end(&mut silent).await, "");
    // It was idle after its answer.
    assert!(until_end(&mut kept).await.starts_with("HTTP/1.1 200 OK"));
    let mut bytes = Vec::new();
    // Cut while it was sending, so its end may be a reset.
    let _ = tokio::time::timeout(PATIENCE, reading.read_to_end(&mut bytes)).await.expect("it ends");
    assert_eq!(bytes, b"");
    tokio::time::timeout(PATIENCE, drip).await.expect("it is told").expect("it ends");
    answers_others(&server.client).await;
}

#[tokio::test]
async fn a_body_that_takes_too_long_or_stops_half_way_is_a_problem() {
    let (server, address) = start(Limits { body: SOON, ..patient() }).await;
    let mut stream = connect(address).await;
    let head = "POST /v1/batches/register HTTP/1.1\r\nX-User-ID: a\r\nContent-Length: 1000\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.expect("taken");
    assert_problem(&one_answer(&mut stream).await, 408, "REQUEST_TIMEOUT");
    assert_eq!(until_end(&mut stream).await, "", "the rest of the body could be taken for a request");
    answers_others(&server.client).await;
}

#[tokio::test]
async fn half_of_a_body_does_nothing_when_its_client_goes() {
    let (server, address) = start(patient()).await;
    let client = &server.client;
    let body = harness::registration(1).to_string();
    for _ in 0..20 {
        let mut stream = connect(address).await;
        let head = format!("POST /v1/batches/register HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len() + 1);
        stream.write_all(head.as_bytes()).await.expect("taken");
        stream.write_all(body.as_bytes()).await.expect("taken");
        stream.shutdown().await.expect("half closed");
        // Nothing but the end comes, or that the body was not there.
        let answer = until_end(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(client.get("/v1/batches").await.json()["batches"], Value::Array(Vec::new()));
    answers_others(client).await;
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_cut() {
    let (server, address) = start(Limits { unread: SOON, ..patient() }).await;
    let (_unread, mut writing) = connect(address).await.into_split();
    let requests = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(1_000);
    let sent = async { while writing.write_all(requests.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, sent).await.expect("it is cut");
    answers_others(&server.client).await;
}

#[tokio::test]
async fn many_idle_and_half_open_connections_keep_nobody_waiting() {
    let (server, address) = start(patient()).await;
    let mut held = Vec::new();
    for number in 0..200 {
        let mut stream = connect(address).await;
        let said =
            ["", "G", "GET /livez HTTP/1.1\r\n", "POST /v1/batches/register HTTP/1.1\r\nContent-Length: 9\r\n\r\n{"];
        stream.write_all(said[number % said.len()].as_bytes()).await.expect("taken");
        held.push(stream);
    }
    for _ in 0..20 {
        answers_others(&server.client).await;
    }
    let batch = server.client.ready_batch(2).await;
    server.client.pipeline(&batch, "ai_feedback").await;
    assert_eq!(server.client.until_settled(&batch).await["status"], "completed_successfully");
}

#[tokio::test]
async fn past_the_limit_connections_are_refused_and_health_is_still_answered() {
    let (server, address) = start(Limits { connections: 2, ..patient() }).await;
    let mut first = connect(address).await;
    let mut second = connect(address).await;
    for stream in [&mut first, &mut second] {
        stream.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.expect("taken");
        assert_eq!(one_answer(stream).await.0, 200);
    }
    let refused = async || {
        let mut third = connect(address).await;
        third.write_all(b"GET /v1/batches HTTP/1.1\r\nX-User-ID: a\r\n\r\n").await.expect("taken");
        let answer = one_answer(&mut third).await;
        assert_eq!(until_end(&mut third).await, "", "it is not kept");
        answer
    };
    for _ in 0..3 {
        let answer = refused().await;
        assert_problem(&answer, 503, "SERVICE_UNAVAILABLE");
        assert!(answer.1.contains("retry-after: "), "{}", answer.1);
        let mut fourth = connect(address).await;
        fourth.write_all(b"GET /readyz HTTP/1.1\r\n\r\n").await.expect("taken");
        assert_eq!(one_answer(&mut fourth).await.0, 200);
    }
    // Those that are served go on, and once one of them leaves there is a place.
    first.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.expect("taken");
    assert_eq!(one_answer(&mut first).await.0, 200);
    drop(second);
    let is_free = tokio::time::timeout(PATIENCE, async {
        loop {
            let mut stream = connect(address).await;
            stream.write_all(b"GET /v1/batches HTTP/1.1\r\nX-User-ID: a\r\n\r\n").await.expect("taken");
            if one_answer(&mut stream).await.0 == 200 {
                break;
            }
        }
    });
    is_free.await.expect("a place becomes free");
    server.app.stop().await;
}

#[tokio::test]
async fn bodies_share_a_bounded_memory() {
    let (server, address) = start(Limits { bodies: 1_000, ..patient() }).await;
    let mut holds = connect(address).await;
    let head = "POST /v1/batches/register HTTP/1.1\r\nX-User-ID: a\r\nContent-Length: 1000\r\n\r\n";
    holds.write_all(head.as_bytes()).await.expect("taken");
    holds.write_all(&[b' '; 900]).await.expect("taken");
    let body = harness::registration(1);
    let refused = async {
        loop {
            let answer = server.client.post("/v1/batches/register", body.clone()).await;
            if answer.status == 503 {
                break answer;
            }
        }
    };
    let refused = tokio::time::timeout(PATIENCE, refused).await.expect("what was sent counts");
    assert_eq!(refused.json()["error_code"], "SERVICE_UNAVAILABLE");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(server.client.get("/readyz").await.status, 200);
    drop(holds);
    let free = async { while server.client.post("/v1/batches/register", body.clone()).await.status != 202 {} };
    tokio::time::timeout(PATIENCE, free).await.expect("what was given back is free");
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_no_idle_connection() {
    let (server, address) = start(patient()).await;
    let mut silent = connect(address).await;
    let mut kept = connect(address).await;
    kept.write_all(b"GET /livez HTTP/1.1\r\n\r\n").await.expect("taken");
    assert_eq!(one_answer(&mut kept).await.0, 200);
    let mut serving = connect(address).await;
    let body = harness::registration(1).to_string();
    let head = format!("POST /v1/batches/register HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
    serving.write_all(head.as_bytes()).await.expect("taken");
    // Served once it is counted: what was asked later on another connection is answered only then.
    answers_others(&server.client).await;
    let stopped = tokio::spawn(server.app.stop());
    assert_eq!(until_end(&mut kept).await, "");
    assert_eq!(until_end(&mut silent).await, "");
    assert!(!stopped.is_finished(), "it did not wait for the request");
    serving.write_all(body.as_bytes()).await.expect("taken");
    assert_eq!(one_answer(&mut serving).await.0, 202);
    assert_eq!(until_end(&mut serving).await, "");
    tokio::time::timeout(PATIENCE, stopped).await.expect("it ends").expect("cleanly");
}
