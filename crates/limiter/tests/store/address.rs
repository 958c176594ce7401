//! Addresses at which no store answers, or not as it should: what is wrong is told.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use tidegate::{Limiter, StoreError, StoreOptions};

use super::{RedisServer, ask, plan, until};

/// Waits until a store at a URL is told to fail with this, and returns the words.
async fn words(url: &str, expected: StoreError) -> String {
    let patience = Duration::from_millis(300);
    let options = StoreOptions::redis(url).unwrap().timeouts(patience, patience);
    let limiter = Limiter::with_store(plan(100, Duration::from_secs(60)), options).unwrap();
    let start = format!("{}: ", expected.name());
    let found = || {
        let status = limiter.store_status().unwrap();
        status.error.filter(|error| error.starts_with(&start))
    };
    until("it is told", || found().is_some()).await;
    found().unwrap()
}

#[tokio::test]
async fn a_server_without_tls() {
    // It waits for the end of a line that never comes.
    let server = RedisServer::start();
    let url = server.tcp_url().replace("redis://", "rediss://");
    let told = words(&url, StoreError::Timeout).await;
    assert!(told.contains("begins with redis://"), "{told}");
    // Another says that it does not understand.
    let url = talker(b"HTTP/1.1 400 Bad Request\r\n\r\n").replace("redis://", "rediss://");
    let told = words(&url, StoreError::Tls).await;
    assert!(told.contains("begins with redis://"), "{told}");
}

#[tokio::test]
async fn something_that_is_no_redis() {
    let told = words(&talker(b"HTTP/1.1 400 Bad Request\r\n\r\n"), StoreError::Reply).await;
    assert!(told.contains("neither Redis nor Valkey"), "{told}");
}

#[tokio::test]
async fn a_database_that_there_is_not_and_one_that_is_not_allowed() {
    let server = RedisServer::start();
    let told = words(&format!("{}/99", server.tcp_url()), StoreError::Database).await;
    assert!(told.contains("out of range"), "{told}");
    ask(&server, &["ACL", "SETUSER", "default", "-select"]);
    words(&format!("{}/1", server.tcp_url()), StoreError::Denied).await;
}

#[test]
fn a_port_that_is_none() {
    for (url, word) in [
        ("redis://host:99999", "between 1 and 65535"),
        ("redis://host:0", "between 1 and 65535"),
        ("redis://host:port", "between 1 and 65535"),
        ("redis://:6379", "names a host"),
    ] {
        let problem = StoreOptions::redis(url).unwrap_err().to_string();
        assert!(problem.contains(word), "{url}: {problem}");
    }
}

/// Listens, says this to whoever says anything, and returns its URL.
fn talker(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever goes away in between is none of its business.
            let _ = stream.read(&mut [0; 512]);
            let _ = stream.write_all(answer);
        }
    });
    url
}
