//! The programs of a world: a store, providers and gateways, each a process of its own on a free port.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running `tidegate`, gateway or mock; it is killed when the value is dropped.
pub(crate) struct Tidegate {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Tidegate {
    /// Starts the program with these arguments; what it says goes to files of this name in the folder.
    pub(crate) async fn start(folder: &Path, name: &str, arguments: &[String]) -> Result<Self, String> {
        let stdout = folder.join(format!("{name}.out"));
        let stderr = folder.join(format!("{name}.log"));
        let file = |path: &Path| File::create(path).map_err(|error| error.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(arguments)
            .env("REPLICAS_KEY", "sk-replicas")
            .stdin(Stdio::null())
            .stdout(file(&stdout)?)
            .stderr(file(&stderr)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("tidegate does not start: {error}"))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let said = fs::read_to_string(&stdout).unwrap_or_default();
            let address = said.lines().find_map(|line| {
                let address = line.strip_prefix("listening on http://")?;
                address.trim_end_matches('/').parse().ok()
            });
            if let Some(address) = address {
                return Ok(Self { child, address });
            }
            if Instant::now() > end || !matches!(child.try_wait(), Ok(None)) {
                let log = fs::read_to_string(&stderr).unwrap_or_default();
                return Err(format!("{name} does not listen: {log}"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills it, as SIGKILL does.
    pub(crate) async fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill().await;
    }
}

/// A Redis server at an address that stays the same over its restarts.
pub(crate) struct Redis {
    folder: PathBuf,
    port: u16,
    clock: Option<Clock>,
    child: Child,
}

impl Redis {
    /// Starts one that writes everything to disk before it answers, with a clock that can be moved if `is_movable`.
    pub(crate) async fn start(folder: &Path, is_movable: bool) -> Result<Self, String> {
        let folder = folder.join("redis");
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let clock = if is_movable {
            Some(Clock::make(&folder).await?)
        } else {
            None
        };
        let mut problem = String::new();
        // Somebody else may take the port before the server does.
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0")
                .and_then(|listener| listener.local_addr())
                .map_err(|error| error.to_string())?
                .port();
            match launch(&folder, port, clock.as_ref()).await {
                Ok(child) => {
                    return Ok(Self {
                        folder,
                        port,
                        clock,
                        child,
                    });
                }
                Err(error) => problem = error,
            }
        }
        Err(problem)
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Kills it, as SIGKILL does.
    pub(crate) async fn kill(&mut self) {
        let _ = self.child.kill().await;
    }

    /// Starts it again after it was killed: with what it had on disk, or with nothing.
    pub(crate) async fn restart(&mut self, is_empty: bool) -> Result<(), String> {
        if is_empty {
            fs::remove_dir_all(&self.folder)
                .and_then(|()| fs::create_dir_all(&self.folder))
                .map_err(|error| error.to_string())?;
        }
        self.child = launch(&self.folder, self.port, self.clock.as_ref()).await?;
        Ok(())
    }

    /// Stops it: it keeps its connections and says nothing.
    pub(crate) async fn freeze(&self) -> Result<(), String> {
        self.signal("-STOP").await
    }

    /// Lets it go on.
    pub(crate) async fn thaw(&self) -> Result<(), String> {
        self.signal("-CONT").await
    }

    /// Moves its clock so many seconds away from the true time.
    pub(crate) fn move_clock(&self, by: i64) -> Result<(), String> {
        let clock = self.clock.as_ref().ok_or("its clock cannot be moved")?;
        clock.set(by)
    }

    /// Returns how many scripts it has run since it was started.
    pub(crate) async fn scripts(&self) -> Result<u64, String> {
        let info = ask(self.address(), "INFO commandstats").await?;
        let calls = |name: &str| -> u64 {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split(',').next()?.parse().ok())
                .unwrap_or_default()
        };
        Ok(calls("cmdstat_evalsha:calls=") + calls("cmdstat_eval:calls="))
    }

    async fn signal(&self, signal: &str) -> Result<(), String> {
        let pid = self.child.id().ok_or("the server has ended")?.to_string();
        let status = Command::new("kill").args([signal, &pid]).status().await;
        match status {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("kill {signal} {pid} failed")),
        }
    }
}

/// A clock that can be moved.
struct Clock {
    /// Says by how many seconds.
    file: PathBuf,
    /// What a program is preloaded with that asks it.
    library: PathBuf,
}

impl Clock {
    async fn make(beside: &Path) -> Result<Self, String> {
        let clock = Self {
            file: beside.with_extension("clock"),
            library: beside.with_extension("so"),
        };
        clock.set(0)?;
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/replicas/clock.c");
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", source, "-o"])
            .arg(&clock.library)
            .output()
            .await;
        match output {
            Ok(output) if output.status.success() => Ok(clock),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(format!("cc cannot be run: {error}")),
        }
    }

    fn set(&self, seconds: i64) -> Result<(), String> {
        // The file must never be seen half written.
        let new = self.file.with_extension("new");
        fs::write(&new, seconds.to_string())
            .and_then(|()| fs::rename(&new, &self.file))
            .map_err(|error| error.to_string())
    }
}

async fn launch(folder: &Path, port: u16, clock: Option<&Clock>) -> Result<Child, String> {
    let program = std::env::var("TIDEGATE_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
    let log = folder.with_extension("log");
    let log = File::options().create(true).append(true).open(log);
    let mut command = Command::new(&program);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(log.map_err(|error| error.to_string())?)
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if let Some(clock) = clock {
        command
            .env("LD_PRELOAD", &clock.library)
            .env("REPLICAS_CLOCK", &clock.file);
    }
    let mut child = command
        .spawn()
        .map_err(|error| format!("{program} cannot be run ({error}): apt-get install redis-server"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let end = Instant::now() + PATIENCE;
    loop {
        if ask(address, "PING")
            .await
            .is_ok_and(|answer| answer.starts_with("+PONG"))
        {
            return Ok(child);
        }
        if Instant::now() > end || !matches!(child.try_wait(), Ok(None)) {
            return Err(format!("{program} does not start at port {port}"));
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Asks a Redis server something without arguments of its own kind and returns the answer's first part.
async fn ask(address: SocketAddr, command: &str) -> Result<String, String> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(5), asking).await;
    let answer = answer.map_err(|_| "the store does not answer".to_owned())?;
    answer.map_err(|error| error.to_string())
}
