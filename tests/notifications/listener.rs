//! A browser that listens: over a web socket, or for server-sent events.
#![allow(dead_code, reason = "each test file uses another part")]

use std::net::SocketAddr;
use std::time::Duration;

use rephase::app::App;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_stream::StreamExt as _;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::harness::{Client, PATIENCE};

/// What a socket is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Event(Value),
    Ping,
    Closed(u16, String),
    /// The connection ended without a reason.
    Ended,
}

pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// A socket at `path`, with these headers.
    pub async fn open_with(address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let stream = TcpStream::connect(address).await.expect("it accepts");
        Self::open_over(stream, address, path, headers).await
    }

    async fn open_over(stream: TcpStream, address: SocketAddr, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut request = format!("ws://{address}{path}").into_client_request().expect("a request");
        for (name, value) in headers {
            let name: reqwest::header::HeaderName = name.parse().expect("a name");
            request.headers_mut().insert(name, value.parse().expect("a value"));
        }
        let opened = timeout(PATIENCE, tokio_tungstenite::client_async(request, stream)).await;
        Self(opened.expect("it answers").expect("the socket is accepted").0)
    }

    /// A socket of `user`, where names are believed.
    pub async fn of(app: &App, user: &str) -> Self {
        Self::open_with(app.address(), "/ws", &[("x-user-id", user)]).await
    }

    /// As [`Socket::of`], over a connection that takes little before it is read.
    pub async fn narrow(app: &App, user: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(64 * 1_024).expect("it can be small");
        let stream = socket.connect(app.address()).await.expect("it accepts");
        Self::open_over(stream, app.address(), "/ws", &[("x-user-id", user)]).await
    }

    pub async fn heard(&mut self) -> Heard {
        match timeout(PATIENCE, self.0.next()).await.expect("something is sent") {
            Some(Ok(Message::Text(text))) => Heard::Event(serde_json::from_str(&text).expect("JSON")),
            Some(Ok(Message::Ping(_))) => Heard::Ping,
            Some(Ok(Message::Close(frame))) => {
                let frame = frame.expect("a reason");
                Heard::Closed(frame.code.into(), frame.reason.to_string())
            }
            None | Some(Err(Error::Io(_) | Error::Protocol(_) | Error::ConnectionClosed)) => Heard::Ended,
            other => panic!("nobody expects {other:?}"),
        }
    }

    /// The next event.
    pub async fn event(&mut self) -> Value {
        match self.other_than_ping().await {
            Heard::Event(event) => event,
            end => panic!("the socket ended: {end:?}"),
        }
    }

    async fn other_than_ping(&mut self) -> Heard {
        let other = async {
            loop {
                let heard = self.heard().await;
                if heard != Heard::Ping {
                    return heard;
                }
            }
        };
        timeout(PATIENCE, other).await.expect("more than pings")
    }

    pub async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::new();
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// Why it is closed, whatever comes before.
    pub async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.other_than_ping().await {
                Heard::Closed(code, reason) => return (code, reason),
                Heard::Event(_) => {}
                end => panic!("the socket ended without a reason: {end:?}"),
            }
        }
    }

    /// The connection below.
    pub fn stream(&mut self) -> &mut TcpStream {
        self.0.get_mut()
    }
}

/// Server-sent events.
pub struct Stream {
    response: reqwest::Response,
    text: String,
}

pub const STREAM: &str = "/v1/notifications/stream";

impl Stream {
    pub async fn open(client: &Client) -> Self {
        let request = client.request(Method::GET, STREAM).timeout(Duration::from_hours(1));
        let response = request.send().await.expect("it answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The next block of lines; none at the end of the stream.
    pub async fn block(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let rest = self.text.split_off(end + 2);
                let mut block = std::mem::replace(&mut self.text, rest);
                block.truncate(end);
                return Some(block);
            }
            let part = timeout(PATIENCE, self.response.chunk()).await.expect("something is sent");
            let part = part.expect("the stream ends cleanly")?;
            self.text.push_str(std::str::from_utf8(&part).expect("UTF-8"));
        }
    }

    /// The next event, as a socket has it.
    pub async fn event(&mut self) -> Value {
        loop {
            let block = self.block().await.expect("an event");
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some(event), Some(data)) = (field("event:"), field("data:")) {
                return json!({ "event": event, "data": serde_json::from_str::<Value>(data).expect("JSON") });
            }
            assert!(block.starts_with(':'), "neither an event nor a comment: {block}");
        }
    }
}
