//! Connections to one server, kept for the next request.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why a base URL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseUrlError {
    /// It is not a URL of a server.
    #[error("{0:?} is not a base URL; it looks like http://127.0.0.1:8080/v1")]
    Malformed(String),
    /// The system's certificates cannot be used.
    #[error("certificates of this system cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why no response head came.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    #[error("cannot connect: {0}")]
    Connect(#[from] io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// A connection that sends one request at a time.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// All connections to the server of a base URL.
pub(super) struct Connections {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<Sender>>,
}

impl Connections {
    pub(super) fn to(base_url: &Uri) -> Result<Self, BaseUrlError> {
        let malformed = || BaseUrlError::Malformed(base_url.to_string());
        let host = base_url.host().ok_or_else(malformed)?;
        // An IPv6 address stands in brackets in a URL only.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match base_url.scheme_str() {
            Some("http") => (None, 80),
            Some("https") => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_platform_verifier()?
                    .with_no_client_auth();
                let name = ServerName::try_from(host.clone()).map_err(|_| malformed())?;
                (Some((TlsConnector::from(Arc::new(config)), name)), 443)
            }
            _ => return Err(malformed()),
        };
        Ok(Self {
            host,
            port: base_url.port_u16().unwrap_or(port),
            tls,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Sends the request and waits for the head of the response. The sender comes with it, to be given back by
    /// [`Self::keep`] once the body is read.
    ///
    /// A request is sent at most once: only one that a closed connection handed back unsent goes to another.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), SendError> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let response = sender.send_request(request).await?;
        Ok((response, sender))
    }

    /// Keeps a connection whose last response was read to its end.
    pub(super) fn keep(&self, sender: Sender) {
        if !sender.is_closed() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sender);
        }
    }

    fn take(&self) -> Option<Sender> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Sender, SendError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        match &self.tls {
            None => shake_hands(TokioIo::new(tcp)).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await?;
                shake_hands(TokioIo::new(stream)).await
            }
        }
    }
}

async fn shake_hands<T>(io: T) -> Result<Sender, SendError>
where
    T: Read + Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    // It ends by itself once the sender is dropped; what goes wrong on it is told to the request.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}
