//! A Redis server for a test.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server that ends with the test.
pub(crate) struct Server {
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    child: Child,
}

impl Server {
    /// Starts a server; `None` where none is installed.
    pub(crate) fn start(arguments: &[&str]) -> Option<Self> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let folder = TempDir::new().unwrap();
        for _ in 0..16 {
            // Somebody else may take the port before the server does.
            let port = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
                .port();
            match run(&folder, port, &arguments) {
                Start::Ready(child) => {
                    return Some(Self {
                        folder,
                        port,
                        arguments,
                        child,
                    });
                }
                Start::Ended => {}
                Start::Missing => {
                    eprintln!("there is no redis-server: not tested");
                    return None;
                }
            }
        }
        panic!("the server does not start");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// Kills the server, with everything that it knows.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same port.
    pub(crate) fn start_again(&mut self) {
        match run(&self.folder, self.port, &self.arguments) {
            Start::Ready(child) => self.child = child,
            _ => panic!("the server does not start again"),
        }
    }

    /// Asks the server something, as its administrator.
    pub(crate) async fn ask(&self, command: &[&str]) -> redis::Value {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async(&mut connection).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

enum Start {
    Ready(Child),
    Ended,
    Missing,
}

/// Starts a server and reads what it says until it takes connections.
fn run(folder: &TempDir, port: u16, arguments: &[String]) -> Start {
    let mut command = Command::new("redis-server");
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(folder.path())
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return Start::Missing;
    };
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let is_ready =
        |line: &str| line.contains("eady to accept connections") || line.contains("Running mode=sentinel");
    if lines.by_ref().map_while(Result::ok).any(|line| is_ready(&line)) {
        // Whatever it says later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        return Start::Ready(child);
    }
    let _ = child.wait();
    Start::Ended
}
