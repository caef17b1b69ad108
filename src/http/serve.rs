//! Connections: how many there are, how long each may take for what, and how they end.
//!
//! A client that is slow, silent or gone costs one place for a bounded time and nobody else anything. What hyper answers
//! by itself (to what is no HTTP, and to heads that are too large) has a status and no body: it offers no place to add
//! one.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::http::{Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;

use super::Tls;

/// How many connections there may be, and how long each may take for what.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How many connections are served at once. Past that a connection is served the health routes, and 503 else: a
    /// client that is told can go elsewhere or come back, one that waits to be accepted knows nothing, and whoever
    /// watches the server has to be answered above all when it is full.
    pub connections: usize,
    /// How long a connection may take until it is agreed how it is kept secret, where it is.
    pub handshake: Duration,
    /// How long a connection may take to send the head of a request, and so also how long it may be idle: hyper begins
    /// to count when it is ready for the next request.
    pub head: Duration,
    /// How long a request may take to send its body.
    pub body: Duration,
    /// How long a client may leave what it is sent unread.
    pub unread: Duration,
    /// How often a connection that listens for notifications is shown that the server is there, and asked whether the
    /// client is.
    pub ping: Duration,
    /// How much memory bodies may take that are being received or served, in bytes. Past that a request is answered 503.
    pub bodies: usize,
    /// How many streams of events there may be. Past that 503.
    pub streams: usize,
    /// How often a stream of events on which nothing happens says that it is there.
    pub heartbeat: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Some 10 KB each while they are idle, so less than 100 MB.
            connections: 8_192,
            // Some round trips over a bad line.
            handshake: Duration::from_secs(10),
            // Longer than a client takes between two questions while somebody watches, or for a head over a bad line.
            head: Duration::from_secs(30),
            // The largest body in this time is 2 Mbit/s.
            body: Duration::from_mins(1),
            unread: Duration::from_secs(30),
            // Half of what proxies let a connection be silent for.
            ping: Duration::from_secs(15),
            // Sixteen of the largest bodies at once.
            bodies: 16 * super::MAX_ESSAYS_BODY_BYTES,
            // Each may hold some pages of events.
            streams: 128,
            // Less than proxies wait before they think a connection dead.
            heartbeat: Duration::from_secs(15),
        }
    }
}

impl Limits {
    /// The connections that the process has file descriptors for, besides those that the store needs.
    pub(super) fn places(&self) -> usize {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let descriptors = descriptors.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
        self.connections.min(descriptors.saturating_sub(OTHER_DESCRIPTORS)).max(1)
    }
}

/// File descriptors that are not for connections: those of the store, of the runtime, and of connections that are
/// refused. A store that cannot open a file is a store that failed.
const OTHER_DESCRIPTORS: usize = 256;

/// How many connections may be refused at once. Past that the next ones wait to be accepted.
const REFUSALS: usize = 64;

/// How long a connection that is going to be refused may take for anything.
const REFUSAL: Duration = Duration::from_secs(2);

/// The largest head of a request, in bytes. hyper takes at most 100 headers in it; another number would cost an
/// allocation for each request.
const MAX_HEAD_BYTES: usize = 64 * 1_024;

/// How long the end of a connection waits for the client's, so that a client which is still sending reads its answer
/// before it learns that nobody listens. (A socket that is closed with unread bytes takes the answer with it.)
const LINGER: Duration = Duration::from_secs(3);

/// How long a connection that has not asked for anything yet is waited for once the server is told to end: its request
/// may have arrived already.
const FRESH: Duration = Duration::from_millis(100);

/// How long nothing is accepted after the system refused to: it is short of something, and asking again at once would
/// only keep it busy.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `drain`, then ends: connections that are idle at once, others after what they are
/// being answered. Whoever drops this ends all of them. Past the limit connections get `refusals`.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    (router, refusals): (Router, Router),
    limits: Limits,
    drain: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(limits.places()));
    let refusal_places = Arc::new(Semaphore::new(REFUSALS));
    let Limits { handshake, head, unread, .. } = limits;
    let normal = Manner { handshake, head, unread, is_kept: true };
    let refusing = Manner { handshake: REFUSAL, head: REFUSAL, unread: REFUSAL, is_kept: false };
    let mut connections = JoinSet::new();
    let mut is_full = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places, &refusal_places) => accepted,
        };
        let (stream, place) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Answers are small and somebody waits for each; where it cannot be set they are only slower.
        let _ = stream.set_nodelay(true);
        // Once each time, not once for each connection.
        if matches!(place, Place::Refusal(_)) && !is_full {
            tracing::warn!("there are as many connections as there can be");
        }
        is_full = matches!(place, Place::Refusal(_));
        let (router, manner) = if is_full { (refusals.clone(), refusing) } else { (router.clone(), normal) };
        match &tls {
            None => connections.spawn(connection(stream, router, manner, drain.clone(), place)),
            Some(tls) => {
                connections.spawn(secure_connection(stream, tls.clone(), router, manner, drain.clone(), place))
            }
        };
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// What a connection holds while it lasts.
enum Place {
    /// Among those that are served.
    Service(OwnedSemaphorePermit),
    /// Among those that are refused.
    Refusal(OwnedSemaphorePermit),
}

/// The next connection, once there is a place of either kind for it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    refusals: &Arc<Semaphore>,
) -> io::Result<(TcpStream, Place)> {
    let place = tokio::select! {
        biased;
        place = Arc::clone(places).acquire_owned() => Place::Service(place.map_err(io::Error::other)?),
        place = Arc::clone(refusals).acquire_owned() => Place::Refusal(place.map_err(io::Error::other)?),
    };
    let (stream, _) = listener.accept().await?;
    let place = match place {
        Place::Service(place) => Place::Service(place),
        // Meanwhile a better one may be free.
        Place::Refusal(place) => match Arc::clone(places).try_acquire_owned() {
            Ok(better) => Place::Service(better),
            Err(_) => Place::Refusal(place),
        },
    };
    Ok((stream, place))
}

/// How a connection is served.
#[derive(Debug, Clone, Copy)]
struct Manner {
    handshake: Duration,
    head: Duration,
    unread: Duration,
    /// Whether it is kept for another request.
    is_kept: bool,
}

/// Agrees with the client on how the connection is kept secret, and serves it then.
async fn secure_connection(
    stream: TcpStream,
    tls: Tls,
    router: Router,
    manner: Manner,
    drain: CancellationToken,
    place: Place,
) {
    let agreed = tokio::select! {
        // Nothing was asked yet.
        () = drain.cancelled() => return,
        agreed = tokio::time::timeout(manner.handshake, tls.accept(stream)) => agreed,
    };
    match agreed {
        Ok(Ok(stream)) => connection(stream, router, manner, drain, place).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection could not be kept secret"),
        Err(_) => tracing::debug!("a client took too long to agree on how its connection is kept secret"),
    }
}

/// Serves one connection to its end, over anything that carries bytes.
async fn connection<I>(io: I, router: Router, manner: Manner, drain: CancellationToken, place: Place)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let usage = Connection::default();
    let (beyond, mut ended_beyond) = mpsc::channel(1);
    let service = Noted { service: TowerToHyperService::new(router), usage: usage.clone(), beyond: BeyondHttp(beyond) };
    let io = TokioIo::new(Patient { io, unread: manner.unread, waits: None, drain: drain.clone() });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(manner.head);
    http.max_buf_size(MAX_HEAD_BYTES).keep_alive(manner.is_kept);
    let mut connection = Box::pin(http.serve_connection(io, service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let fresh = async {
                tokio::time::sleep(FRESH).await;
                if usage.is_worth_waiting_for() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = fresh => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended before its time");
    }
    // With it goes what can still make it a web socket; then one that is has it until it ends.
    drop(connection);
    let _ = ended_beyond.recv().await;
    // Only now is there room for another one.
    drop(place);
}

/// Held by what goes on with a connection beyond HTTP, which is waited for as long as it has this.
#[derive(Debug, Clone)]
pub(super) struct BeyondHttp(mpsc::Sender<Infallible>);

impl BeyondHttp {
    /// The server waits no longer.
    pub(super) async fn cut(&self) {
        self.0.closed().await;
    }
}

/// What a connection is used for.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection(Arc<Usage>);

#[derive(Debug, Default)]
struct Usage {
    /// Something was asked.
    asked: AtomicBool,
    /// The answer has no end of its own.
    streams: AtomicBool,
}

impl Connection {
    /// From now on an answer is being sent that has no end of its own, and that its client can go on with later. It ends
    /// with the server, and is not waited for, since its client may not be reading.
    pub(super) fn streams(&self) {
        self.0.streams.store(true, Ordering::Relaxed);
    }

    /// Whether somebody waits for an answer that has an end.
    fn is_worth_waiting_for(&self) -> bool {
        self.0.asked.load(Ordering::Relaxed) && !self.0.streams.load(Ordering::Relaxed)
    }
}

/// Notes that something was asked.
struct Noted {
    service: TowerToHyperService<Router>,
    usage: Connection,
    beyond: BeyondHttp,
}

impl hyper::service::Service<Request<Incoming>> for Noted {
    type Response = axum::response::Response;
    type Error = Infallible;
    type Future = TowerToHyperServiceFuture<Router, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        self.usage.0.asked.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(self.usage.clone());
        if request.headers().contains_key(header::UPGRADE) {
            request.extensions_mut().insert(self.beyond.clone());
        }
        self.service.call(request)
    }
}

/// A connection that waits for its client: for some time where the client does not read, and at the end until the client
/// has read the answer.
struct Patient<I> {
    io: I,
    unread: Duration,
    /// Runs while the client is waited for.
    waits: Option<Pin<Box<Sleep>>>,
    drain: CancellationToken,
}

impl<I> Patient<I> {
    /// An error where the client has let `pending` wait for too long.
    fn within<T>(&mut self, context: &mut Context<'_>, pending: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if pending.is_ready() {
            self.waits = None;
            return pending;
        }
        let unread = self.unread;
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(unread)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read what it is sent")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.within(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.within(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.within(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_shutdown(context))?;
        if this.drain.is_cancelled() {
            return Poll::Ready(Ok(()));
        }
        let linger = this.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if linger.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut thrown_away = [std::mem::MaybeUninit::uninit(); 8 * 1_024];
        // So many at once, so that a client that sends quickly does not keep others waiting.
        for _ in 0..16 {
            let mut buffer = ReadBuf::uninit(&mut thrown_away);
            match ready!(Pin::new(&mut this.io).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // The client has ended too, one way or the other.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
