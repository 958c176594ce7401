//! A server that is spoken to over TLS.

use std::net::TcpListener;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tidegate::{Limiter, StoreOptions, StoreState};

use super::{RedisServer, plan, request, soon, until};

/// A server with a certificate for `localhost` of an authority that no system knows: the server, its URL, the authority.
fn server() -> (RedisServer, String, String, tempfile::TempDir) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (cert, key, ca) = (
        file("cert", certificate.pem()),
        file("key", key.serialize_pem()),
        file("ca", authority.pem()),
    );
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let arguments = [
        ["--tls-port", port.as_str()],
        ["--tls-cert-file", &cert],
        ["--tls-key-file", &key],
        ["--tls-ca-cert-file", &ca],
        ["--tls-auth-clients", "no"],
    ];
    let server = RedisServer::start_with(arguments.as_flattened());
    (
        server,
        format!("rediss://localhost:{port}"),
        authority.pem(),
        folder,
    )
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let (_server, url, authority, _folder) = server();
    let options = StoreOptions::redis(&url).unwrap().trust_empty(true);
    let minute = Duration::from_secs(60);
    let stranger = Limiter::with_store(plan(4, minute), options.clone()).unwrap();
    let known = Limiter::with_store(plan(4, minute), options.authorities(authority.as_bytes())).unwrap();
    drop(soon("a permit", known.acquire(request())).await.unwrap());
    assert_eq!(known.store_status().unwrap().state, StoreState::Connected);
    until("it is not trusted", || {
        let status = stranger.store_status().unwrap();
        status.error.is_some_and(|error| error.starts_with("tls: "))
    })
    .await;
}
