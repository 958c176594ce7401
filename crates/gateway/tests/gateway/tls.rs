//! Upstreams behind TLS: whose certificates are trusted, and which version of HTTP is spoken.

use std::io::Write;
use std::sync::Arc;

use http::Version;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::NamedTempFile;

use crate::support::*;

/// An authority that no system knows.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The file that `ca_file` names.
    fn file(&self) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// A server called `name` that offers these protocols.
    fn server(&self, name: &str, alpn: &[&str]) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

fn ca_file(file: &NamedTempFile) -> String {
    format!("ca_file = {:?}\n", file.path().to_str().unwrap())
}

#[tokio::test]
async fn the_version_that_both_sides_speak_is_spoken() {
    let authority = Authority::new();
    let file = authority.file();
    for (offered, http2, spoken) in [
        (&["h2", "http/1.1"][..], "auto", Version::HTTP_2),
        (&["http/1.1"], "auto", Version::HTTP_11),
        (&[], "auto", Version::HTTP_11),
        (&["h2", "http/1.1"], "never", Version::HTTP_11),
        (&["h2", "http/1.1"], "always", Version::HTTP_2),
    ] {
        let mut upstream = Upstream::start_tls(authority.server("127.0.0.1", offered)).await;
        let lines = format!("{}http2 = \"{http2}\"", ca_file(&file));
        let config = config(
            &format!("https://{}", upstream.address),
            "workers = 1",
            &lines,
            "rpm = 1000",
        );
        let gateway = tidegate_gateway::serve::Gateway::start(config).unwrap();
        let mut connections = Vec::new();
        for body in [CHAT_BODY, CHAT_STREAM_BODY] {
            let answer = tokio::spawn(send(gateway.address(), post(CHAT, body)));
            let seen = upstream.request().await;
            assert_eq!(seen.version, spoken, "{offered:?} {http2}");
            assert_eq!((seen.uri.path(), &seen.body[..]), (CHAT, body.as_bytes()));
            connections.push(seen.connection);
            let stream = seen.stream_events();
            stream.send("data: {\"a\":1}\n\n").await;
            stream.send("data: [DONE]\n\n").await;
            drop(stream);
            let answer = answer.await.unwrap();
            assert_eq!(answer.status, 200, "{offered:?} {http2}");
            assert_eq!(answer.text(), "data: {\"a\":1}\n\ndata: [DONE]\n\n");
        }
        assert_eq!(connections, [0, 0], "the connection is kept: {offered:?} {http2}");
    }
}

#[tokio::test]
async fn whom_nobody_vouches_for_is_not_spoken_to() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let file = authority.file();
    for server in [
        stranger.server("127.0.0.1", &["h2"]),
        authority.server("127.0.0.2", &["h2"]),
        authority.server("tide.example", &["http/1.1"]),
    ] {
        let mut upstream = Upstream::start_tls(server).await;
        let base_url = format!("https://{}", upstream.address);
        let config = config(&base_url, "", &ca_file(&file), "rpm = 1000");
        let gateway = tidegate_gateway::serve::Gateway::start(config).unwrap();
        let mut request = chat();
        request
            .headers_mut()
            .insert("x-tidegate-max-wait", "0.1".parse().unwrap());
        let answer = send(gateway.address(), request).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
        assert!(
            answer.text().contains("upstream_unreachable"),
            "{}",
            answer.text()
        );
        upstream.assert_quiet();
        until("nothing waits", || waiting(&gateway) + in_flight(&gateway) == 0).await;
    }
}

#[tokio::test]
async fn a_reload_takes_other_authorities_over() {
    let (old, new) = (Authority::new(), Authority::new());
    let (old_file, new_file) = (old.file(), new.file());
    let mut upstream = Upstream::start_tls(new.server("127.0.0.1", &["h2"])).await;
    let base_url = format!("https://{}", upstream.address);
    let with = |file| config(&base_url, "", &ca_file(file), "rpm = 1000");
    let gateway = tidegate_gateway::serve::Gateway::start(with(&old_file)).unwrap();
    let mut request = chat();
    request
        .headers_mut()
        .insert("x-tidegate-max-wait", "0.1".parse().unwrap());
    assert_eq!(send(gateway.address(), request).await.status, 502);
    gateway.reload(with(&new_file)).unwrap();
    let answer = tokio::spawn(send(gateway.address(), chat()));
    upstream.request().await.answer_json(200, "{}");
    assert_eq!(answer.await.unwrap().status, 200);
}
