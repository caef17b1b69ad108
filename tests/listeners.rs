//! The promise "who listens is somebody, and costs nobody else anything": tokens, limits, slow and silent readers, the end.

mod common;
mod harness;
#[path = "notifications/listener.rs"]
mod listener;
#[path = "notifications/tokens.rs"]
mod tokens;

use std::time::Duration;

use common::fixtures::json as fixture;
use harness::{Client, OWNER, PATIENCE, Process, Server, Setup};
use listener::{Heard, STREAM, Socket, Stream};
use rephase::app::{Access, App, Limits, Tokens};
use rephase::contract::{Message, Topic};
use reqwest::Method;
use serde_json::{Value, json};
use tokens::{SECRET, claims, claims_with, signed, token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const NEVER: Duration = Duration::from_hours(1);

/// Nothing ends by itself but what does not answer `ping`.
fn limits(ping: Duration) -> Limits {
    Limits { ping, ..Limits::default() }
}

async fn with_tokens() -> Server {
    let access = Access { tokens: Some(Tokens::new(SECRET.as_bytes())), ..Access::default() };
    Server::start(Setup { access, ..Setup::default() }).await
}

/// Publishes a notification for `user` that is about `size` bytes long.
async fn publish(app: &App, user: &str, size: usize) {
    let mut sample = fixture("samples/teacher_notification_requested.json");
    sample["data"]["teacher_id"] = user.into();
    sample["data"]["payload"] = json!({ "text": "x".repeat(size) });
    let (topic, key) = (Topic::TeacherNotificationRequested, "batch".to_owned());
    let message = Message { topic, key, headers: None, body: sample.to_string().into() };
    app.engine().publish(message).await.expect("published");
}

#[tokio::test]
async fn only_a_token_of_the_identity_service_says_who_listens() {
    let server = with_tokens().await;
    let (app, nobody) = (&server.app, server.client.as_nobody());
    let header = json!({ "alg": "HS256", "typ": "JWT" });
    let good = token(&claims());
    let now_s = harness::START.0 / 1_000;
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let bad = [
        ("nothing", String::new()),
        ("no token", "nonsense".to_owned()),
        ("dots", "..".to_owned()),
        ("no signature", format!("{message}.")),
        ("half a signature", format!("{message}.{}", &signature[..20])),
        ("another's signature", signed(&header, &claims(), "another secret, which is as long as that")),
        ("other claims than were signed", {
            let other = token(&claims_with("sub", json!("eve")));
            format!("{}.{signature}", other.rsplit_once('.').expect("a signature").0)
        }),
        ("no algorithm", signed(&json!({ "alg": "none" }), &claims(), SECRET)),
        (
            "no algorithm, no signature",
            signed(&json!({ "alg": "none" }), &claims(), SECRET)
                .rsplit_once('.')
                .map(|(message, _)| format!("{message}."))
                .expect("dots"),
        ),
        ("another algorithm", signed(&json!({ "alg": "HS512" }), &claims(), SECRET)),
        ("a public key's algorithm", signed(&json!({ "alg": "RS256" }), &claims(), SECRET)),
        ("another audience", token(&claims_with("aud", json!("somebody-else")))),
        ("other audiences", token(&claims_with("aud", json!(["a", "b"])))),
        ("no audience", token(&claims_with("aud", Value::Null))),
        ("another issuer", token(&claims_with("iss", json!("eve")))),
        ("no issuer", token(&claims_with("iss", Value::Null))),
        ("no end", token(&claims_with("exp", Value::Null))),
        ("an end that is no time", token(&claims_with("exp", json!("tomorrow")))),
        ("an end before all time", token(&claims_with("exp", json!(-1)))),
        ("expired", token(&claims_with("exp", json!(now_s)))),
        ("not valid yet", token(&claims_with("nbf", json!(now_s + 1)))),
        ("no user", token(&claims_with("sub", Value::Null))),
        ("an empty user", token(&claims_with("sub", json!(" ")))),
        ("a user that is no text", token(&claims_with("sub", json!(7)))),
        ("a user that is too long", token(&claims_with("sub", json!("u".repeat(256))))),
    ];
    for (what, token) in &bad {
        let path = format!("/ws?token={token}");
        // A name alone is not believed.
        let (code, reason) = Socket::open_with(app.address(), &path, &[("x-user-id", OWNER)]).await.closed().await;
        assert_eq!(code, 1008, "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}");
        let path = format!("{STREAM}?token={token}");
        let refused = Client::send(nobody.request(Method::GET, &path)).await;
        assert_eq!((refused.status, &refused.json()["error_code"]), (401, &json!("AUTHENTICATION_ERROR")), "{what}");
        let request = nobody.request(Method::GET, STREAM).header("Authorization", format!("Bearer {token}"));
        assert_eq!(Client::send(request).await.status, 401, "{what}");
    }
    let (code, _) = Socket::open_with(app.address(), "/ws", &[("x-user-id", OWNER)]).await.closed().await;
    assert_eq!((code, server.client.get(STREAM).await.status), (1008, 401));
    let basic = nobody.request(Method::GET, STREAM).header("Authorization", format!("Basic {good}"));
    assert_eq!(Client::send(basic).await.status, 401);

    let bearer = format!("Bearer {good}");
    let several = token(&claims_with("aud", json!(["another", "huleedu-platform"])));
    let fraction = token(&claims_with("exp", json!(f64::from(u32::try_from(now_s).expect("small")) + 0.5)));
    let mut sockets = vec![
        Socket::open_with(app.address(), &format!("/ws?token={good}"), &[]).await,
        Socket::open_with(app.address(), &format!("/ws?token={several}"), &[("x-user-id", OWNER)]).await,
        Socket::open_with(app.address(), &format!("/ws?token={fraction}"), &[]).await,
        Socket::open_with(app.address(), "/ws?token=nonsense", &[("authorization", &bearer)]).await,
    ];
    publish(app, OWNER, 1).await;
    for socket in &mut sockets {
        assert_eq!(socket.event().await["event"], "batch_processing_started");
    }
    // Who names another besides is refused.
    let (code, reason) =
        Socket::open_with(app.address(), &format!("/ws?token={good}"), &[("x-user-id", "eve")]).await.closed().await;
    assert_eq!((code, reason.contains("different users")), (1008, true), "{reason}");
    let named = nobody.request(Method::GET, STREAM).header("X-User-ID", "eve").header("Authorization", &bearer);
    assert_eq!(Client::send(named).await.status, 403);
    // An hour later its time is over; who is there stays.
    server.clock.advance(3_600_000);
    let (code, reason) = Socket::open_with(app.address(), &format!("/ws?token={good}"), &[]).await.closed().await;
    assert_eq!((code, reason.as_str()), (1008, "the token has expired"));
    publish(app, OWNER, 1).await;
    assert_eq!(sockets[0].event().await["event"], "batch_processing_started");
}

#[tokio::test]
async fn without_a_secret_a_name_is_believed() {
    let Server { app, client, .. } = &Server::start(Setup::default()).await;
    let nobody = client.as_nobody();
    let mut by_header = Socket::of(app, OWNER).await;
    let mut by_query = Socket::open_with(app.address(), "/ws?user_id=teacher-7&token=whatever", &[]).await;
    let mut by_both = Socket::open_with(app.address(), "/ws?user_id=eve", &[("x-user-id", OWNER)]).await;
    publish(app, OWNER, 1).await;
    for socket in [&mut by_header, &mut by_query, &mut by_both] {
        assert_eq!(socket.event().await["event"], "batch_processing_started");
    }
    for path in ["/ws", "/ws?user_id=", "/ws?user_id=%20"] {
        assert_eq!(Socket::open_with(app.address(), path, &[]).await.closed().await.0, 1008, "{path}");
    }
    for (path, status) in [(STREAM, 401), (&*format!("{STREAM}?user_id="), 400), ("/ws?user_id=a&user_id=b", 400)] {
        assert_eq!(nobody.get(path).await.status, status, "{path}");
    }
    // What is no web socket is told so.
    let plain = client.get("/ws").await;
    assert_eq!((plain.status, &plain.json()["error_code"]), (400, &json!("INVALID_REQUEST")));
    assert_eq!(client.post("/ws", json!({})).await.status, 405);
}

#[tokio::test]
async fn five_connections_are_one_users_limit() {
    let Server { app, client, .. } = &Server::start(Setup::default()).await;
    let mut sockets = Vec::new();
    for _ in 0..4 {
        sockets.push(Socket::of(app, OWNER).await);
    }
    let mut stream = Stream::open(client).await;
    let (code, reason) = Socket::of(app, OWNER).await.closed().await;
    assert_eq!((code, reason.is_empty()), (4_000, false));
    let refused = client.get(STREAM).await;
    assert_eq!((refused.status, &refused.json()["error_code"]), (429, &json!("RATE_LIMIT")));
    assert_eq!(refused.header("ratelimit-policy"), "\"notifications\";q=5");
    // Others have places of their own, and those who are there hear on.
    let mut other = Socket::of(app, "eve").await;
    publish(app, "eve", 1).await;
    other.event().await;
    publish(app, OWNER, 1).await;
    for socket in &mut sockets {
        socket.event().await;
    }
    stream.event().await;
    // Whoever leaves, one way or the other, makes room.
    drop(sockets.pop());
    is_accepted(app).await;
    drop(stream);
    is_accepted(app).await;
}

/// Tries until a connection of the owner is accepted. It is closed again.
async fn is_accepted(app: &App) {
    let accepted = timeout(PATIENCE, async {
        loop {
            let mut socket = Socket::of(app, OWNER).await;
            publish(app, OWNER, 1).await;
            match socket.heard().await {
                Heard::Event(_) => return,
                Heard::Closed(code, _) => assert_eq!(code, 4_000),
                other => panic!("nobody expects {other:?}"),
            }
        }
    });
    accepted.await.expect("a place becomes free");
}

#[tokio::test]
async fn who_listens_leaves_room_for_who_asks_and_keeps_a_place() {
    let limits = Limits { connections: 5, ..limits(NEVER) };
    let Server { app, client, .. } = &Server::start(Setup { limits, ..Setup::default() }).await;
    // Half of five.
    let mut first = Socket::of(app, "a").await;
    let second = Socket::of(app, "b").await;
    assert_eq!(Socket::of(app, "c").await.closed().await.0, 1013);
    let refused = client.get(STREAM).await;
    assert_eq!((refused.status, &refused.json()["error_code"]), (503, &json!("SERVICE_UNAVAILABLE")));

    // The two sockets, that client and these are five connections; the next is one too many.
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(app.address()).await.expect("it accepts");
        assert!(asked(&mut stream).await.starts_with("HTTP/1.1 200"));
        idle.push(stream);
    }
    let mut next = TcpStream::connect(app.address()).await.expect("it accepts");
    assert!(asked(&mut next).await.starts_with("HTTP/1.1 503"));
    drop(second);
    let is_free = timeout(PATIENCE, async {
        loop {
            let mut stream = TcpStream::connect(app.address()).await.expect("it accepts");
            if asked(&mut stream).await.starts_with("HTTP/1.1 200") {
                return;
            }
        }
    });
    is_free.await.expect("the place of a socket that left becomes free");
    publish(app, "a", 1).await;
    first.event().await;
}

/// The answer to a request that only a connection with a place is given.
async fn asked(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET /v1/batches HTTP/1.1\r\nX-User-ID: a\r\n\r\n").await.expect("taken");
    let mut part = [0; 4_096];
    let read = timeout(PATIENCE, stream.read(&mut part)).await.expect("it answers").expect("it can be read");
    String::from_utf8_lossy(&part[..read]).into_owned()
}

/// Nearly as large as a notification can be, in bytes.
const LARGE: usize = 63 * 1_024;

#[tokio::test]
async fn a_socket_that_is_read_too_slowly_is_closed_and_others_go_on() {
    let Server { app, .. } = &Server::start(Setup::default()).await;
    let mut slow = Socket::narrow(app, OWNER).await;
    let mut quick = Socket::of(app, OWNER).await;
    let published = overwhelm(app, &mut quick, 120).await;
    // What the system holds back arrives, what waited in the queue does not, and the reason is told.
    let mut heard = 0;
    let end = loop {
        match slow.heard().await {
            Heard::Event(_) => heard += 1,
            Heard::Ping => {}
            end @ (Heard::Closed(..) | Heard::Ended) => break end,
        }
    };
    assert!(matches!(end, Heard::Closed(1013, _)), "{end:?}");
    assert!((1..published - 256).contains(&heard), "it heard {heard}");
    publish(app, OWNER, 1).await;
    quick.event().await;
}

#[tokio::test]
async fn a_stream_that_is_read_too_slowly_ends_and_others_go_on() {
    let Server { app, client, .. } = &Server::start(Setup::default()).await;
    let mut slow = Stream::open(client).await;
    let mut quick = Socket::of(app, OWNER).await;
    let published = overwhelm(app, &mut quick, 250).await;
    let mut heard = 0;
    while slow.block().await.is_some() {
        heard += 1;
    }
    assert!((1..published - 256).contains(&heard), "it heard {heard}");
    publish(app, OWNER, 1).await;
    quick.event().await;
}

/// Publishes more than the system holds back for who does not read, and then as many as fit into a queue and one; says
/// how many.
async fn overwhelm(app: &App, quick: &mut Socket, large: usize) -> usize {
    for size in std::iter::repeat_n(LARGE, large).chain(std::iter::repeat_n(1, 257)) {
        publish(app, OWNER, size).await;
        quick.event().await;
    }
    large + 257
}

#[tokio::test]
async fn who_is_silent_and_there_stays_and_who_is_not_there_goes() {
    let ping = Duration::from_millis(150);
    // A request's head has less time than the sockets are silent for.
    let limits = Limits { head: ping * 2, unread: ping * 2, ..limits(ping) };
    let Server { app, client, .. } = &Server::start(Setup { limits, ..Setup::default() }).await;
    let mut present = Socket::of(app, OWNER).await;
    let mut stream = Stream::open(client).await;
    // A socket of somebody who does not answer pings.
    let mut absent = Socket::of(app, "eve").await;
    let gone = async {
        let mut sent = Vec::new();
        timeout(PATIENCE, absent.stream().read_to_end(&mut sent)).await.expect("it ends").expect("it ends cleanly");
        sent
    };
    let there = async {
        for _ in 0..6 {
            assert_eq!(present.heard().await, Heard::Ping);
            assert_eq!(stream.block().await.as_deref(), Some(":"), "a comment is its sign of life");
        }
    };
    let (sent, ()) = tokio::join!(gone, there);
    assert_eq!(sent, [0x89, 0, 0x89, 0], "two pings, and no third");
    publish(app, OWNER, 1).await;
    present.event().await;
    stream.event().await;
}

#[tokio::test]
async fn what_a_client_sends_is_ignored_and_bounded() {
    let Server { app, .. } = &Server::start(Setup { limits: limits(NEVER), ..Setup::default() }).await;
    let mut socket = Socket::of(app, OWNER).await;
    let frame = |kind: u8, size: u16| {
        let mut frame = vec![0x80 | kind, 0x80 | 0x7e];
        frame.extend(size.to_be_bytes());
        frame.extend([0; 4]);
        frame.resize(frame.len() + usize::from(size), b'x');
        frame
    };
    for kind in [1, 2] {
        socket.stream().write_all(&frame(kind, 4_096)).await.expect("taken");
    }
    publish(app, OWNER, 1).await;
    socket.event().await;
    socket.stream().write_all(&frame(1, 4_097)).await.expect("taken");
    assert_eq!(socket.closed().await.0, 1002);

    // Neither is what is no frame at all.
    let mut socket = Socket::of(app, OWNER).await;
    socket.stream().write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("taken");
    assert_eq!(socket.closed().await.0, 1002);
}

#[tokio::test]
async fn the_end_of_the_server_ends_who_listens() {
    let Server { app, client, .. } = Server::start(Setup { limits: limits(NEVER), ..Setup::default() }).await;
    let mut socket = Socket::of(&app, OWNER).await;
    let mut stream = Stream::open(&client).await;
    // Neither reads nor answers.
    let absent = Socket::of(&app, OWNER).await;
    let told = tokio::spawn(async move { (socket.closed().await.0, stream.block().await) });
    timeout(PATIENCE, app.stop()).await.expect("nobody holds it");
    assert_eq!(told.await.expect("both end"), (1001, None));
    drop(absent);
}

#[tokio::test]
async fn the_program_reads_its_secret_from_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let secret = directory.path().join("secret");
    let path = secret.to_str().expect("UTF-8");
    let serve =
        |arguments: &[&str]| Process::command(&[&["--ephemeral", "--jwt-secret-file", path], arguments].concat());
    let (code, _, errors) = harness::run(serve(&[]));
    assert!(code == 2 && errors.contains("cannot be used"), "{errors}");
    for (content, said) in [(" \n".to_owned(), "empty"), ("x".repeat(4_097), "larger")] {
        std::fs::write(&secret, content).expect("written");
        let (code, _, errors) = harness::run(serve(&[]));
        assert!(code == 2 && errors.contains(said), "{errors}");
    }
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    let process = Process::spawn(serve(&[])).expect("it serves");
    let far = claims_with("exp", json!(4_000_000_000_u64));
    let nobody = process.client.as_nobody();
    let open = |token: String| nobody.request(Method::GET, STREAM).header("Authorization", format!("Bearer {token}"));
    assert_eq!(open(token(&far)).send().await.expect("it answers").status(), 200);
    assert_eq!(Client::send(open(signed(&json!({ "alg": "HS256" }), &far, "another"))).await.status, 401);
}
