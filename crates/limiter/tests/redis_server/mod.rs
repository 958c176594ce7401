//! A real server for tests: started on a free port and a socket in a folder of its own, and ended with the test.
//!
//! `TIDEGATE_REDIS_SERVER` names another program to run, such as `valkey-server`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A server that runs.
pub(crate) struct RedisServer {
    folder: tempfile::TempDir,
    settings: Vec<String>,
    port: u16,
    child: Child,
}

#[allow(dead_code, reason = "each test uses what it needs of it")]
impl RedisServer {
    /// Starts a server that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::start_with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a server with these settings.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the server's files");
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut said = String::new();
        // Somebody else may take the port before the server does.
        for _ in 0..10 {
            let port = free_port();
            match launch(&folder, &settings, port) {
                Ok(child) => {
                    return Self {
                        folder,
                        settings,
                        port,
                        child,
                    };
                }
                Err(output) => said = output,
            }
        }
        panic!("{} does not start:\n{said}", program());
    }

    /// Returns the address of its socket.
    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", socket(&self.folder).display())
    }

    /// Returns its address for those who come by TCP.
    pub(crate) fn tcp_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Returns its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connects to it.
    pub(crate) fn connect(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("the address is well-formed");
        client.get_connection().expect("the server is there")
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Stops it: it keeps its connections and says nothing.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Starts it again, at the same address, with what it has on disk.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = launch(&self.folder, &self.settings, self.port)
            .unwrap_or_else(|said| panic!("{} does not start again:\n{said}", program()));
    }

    /// Starts it again, at the same address, with nothing.
    pub(crate) fn restart_empty(&mut self) {
        self.kill();
        for entry in std::fs::read_dir(self.folder.path())
            .expect("the folder is there")
            .flatten()
        {
            let path = entry.path();
            let removed = if path.is_dir() {
                std::fs::remove_dir_all(&path)
            } else {
                std::fs::remove_file(&path)
            };
            removed.expect("the server's files can be removed");
        }
        self.restart();
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill {signal} {pid} failed"
        );
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn program() -> String {
    std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn socket(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("socket")
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Starts a server and waits until it is ready; what it said instead, if it ends before.
fn launch(folder: &tempfile::TempDir, settings: &[String], port: u16) -> Result<Child, String> {
    let program = program();
    let mut child = Command::new(&program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocket"])
        .arg(socket(folder))
        .arg("--dir")
        .arg(folder.path())
        .args(settings)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run ({error}): apt-get install redis-server"));
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut said = String::new();
    while let Some(Ok(line)) = lines.next() {
        if line.contains("eady to accept connections") {
            // Somebody has to read on, or the server would wait for it.
            std::thread::spawn(move || lines.count());
            return Ok(child);
        }
        said.push_str(&line);
        said.push('\n');
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(said)
}
