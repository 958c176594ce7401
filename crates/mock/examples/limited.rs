//! A provider of 60 requests a minute inside a program: `cargo run --example limited`.

use std::net::TcpListener;
use std::time::Duration;

use tidegate_mock::limits::{Algorithm, Dimension, Limit};
use tidegate_mock::{Server, Settings};

fn main() -> std::io::Result<()> {
    let minute = Duration::from_secs(60);
    let limits = vec![Limit::new(
        Dimension::Requests,
        minute,
        60,
        Algorithm::TokenBucket,
    )];
    let settings = Settings {
        limits,
        ..Settings::default()
    };
    let provider = Server::spawn(settings, TcpListener::bind("127.0.0.1:0")?)?;
    println!("OPENAI_BASE_URL={}/v1", provider.base_url());
    println!("press Enter to stop");
    std::io::stdin().read_line(&mut String::new())?;
    println!("{} requests were refused", provider.shutdown().rate_limited);
    Ok(())
}
