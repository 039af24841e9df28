//! Connections: accepted, encrypted, bounded, and told when the server stops.
//!
//! Owns: the listener's loop, the time that a handshake and the head of a request may take, and how many there may be.
//! Promises: a connection counts until it is closed, also after it has become a WebSocket.

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::AppState;
use super::access::{Arrival, is_proxy};
use super::limits::{Entry, Place};

/// How long a TLS handshake may take. One that is not done counts as a connection.
const HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// How long the head of a request may take, and how long a connection may be idle before the next one.
const HEAD_WAIT: Duration = Duration::from_secs(15);
/// After an error that is ours (no file descriptor left), as long is waited for it to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// What every connection shares.
pub struct Server {
    state: AppState,
    routes: TowerToHyperService<Router>,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Serves these routes, encrypted where there is a certificate.
    pub fn new(state: AppState, routes: Router, tls: Option<TlsAcceptor>) -> Arc<Self> {
        Arc::new(Self { state, routes: TowerToHyperService::new(routes), tls })
    }

    /// Takes connections for as long as it is polled.
    pub async fn accept(self: Arc<Self>, listener: TcpListener) {
        let mut was_refused = false;
        loop {
            match listener.accept().await {
                Ok((stream, remote)) => {
                    was_refused = false;
                    self.enter(stream, remote);
                }
                // The client was gone before we came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    if !was_refused {
                        tracing::error!(%error, "connections cannot be accepted; is the limit of open files too low?");
                    }
                    was_refused = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn enter(self: &Arc<Self>, stream: TcpStream, remote: SocketAddr) {
        let remote = remote.ip().to_canonical();
        let direct = (!is_proxy(remote, &self.state.config.limits.proxies)).then_some(remote);
        let (place, is_too_many) = match self.state.limits.enter(direct) {
            Entry::Fine(place) => (place, false),
            Entry::TooMany(place) => (place, true),
            Entry::Full => return,
        };
        // Small messages should not wait for an acknowledgement.
        let _ = stream.set_nodelay(true);
        let (server, stream) = (Arc::clone(self), Counted { stream, _place: place });
        let arrival = Arrival { remote, is_too_many };
        tokio::spawn(async move {
            match &server.tls {
                None => server.serve(stream, arrival).await,
                Some(tls) => match timeout(HANDSHAKE_WAIT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => server.serve(stream, arrival).await,
                    Ok(Err(error)) => tracing::debug!(%error, "no TLS handshake"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
        });
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, arrival: Arrival) {
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(arrival);
            self.routes.call(request)
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WAIT);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.state.stopped() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "connection ended");
        }
    }
}

/// A connection that counts for as long as it is open.
struct Counted {
    stream: TcpStream,
    _place: Place,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
