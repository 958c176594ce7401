//! Connections to one server, kept for the next request.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
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

use crate::config::{BaseUrl, BaseUrlError, Scheme};

/// Why a server cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The base URL is not one.
    #[error("--base-url: {0}; it looks like http://127.0.0.1:8080/v1")]
    BaseUrl(#[from] BaseUrlError),
    /// The host of the base URL can have no certificate.
    #[error("--base-url: there are no certificates for a host like this")]
    Host,
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
    pub(super) fn to(base_url: &BaseUrl) -> Result<Self, ServerError> {
        let host = base_url.host().to_owned();
        let tls = match base_url.scheme() {
            Scheme::Http => None,
            Scheme::Https => {
                let provider = Arc::new(rustls::crypto::ring::default_provider());
                let config = ClientConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()?
                    .with_platform_verifier()?
                    .with_no_client_auth();
                let name = ServerName::try_from(host.clone()).map_err(|_| ServerError::Host)?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Self {
            port: base_url.port(),
            host,
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
