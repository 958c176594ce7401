//! The programs that are measured: Tidegate and nginx, each a process of its own on a free port.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a program may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running program; it is ended when the value is dropped.
pub(crate) struct Process {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Process {
    /// Starts the gateway in front of `upstream`, with limits that are kept but never reached.
    pub(crate) fn gateway(folder: &Path, upstream: SocketAddr) -> Result<Self, String> {
        let config = folder.join("tidegate.toml");
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nadmin = \"off\"\nconnections_max = 20000\n\n\
             [[upstreams]]\nname = \"openai\"\nprovider = \"openai\"\nbase_url = \"http://{upstream}\"\n\n\
             [[upstreams.limits]]\nmodels = [\"gpt-4o\"]\nrpm = 100_000_000\ntpm = 100_000_000_000\n"
        );
        fs::write(&config, text).map_err(|error| error.to_string())?;
        let stdout = folder.join("tidegate.out");
        let log = fs::File::create(folder.join("tidegate.log")).map_err(|error| error.to_string())?;
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&stdout).map_err(|error| error.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|error| format!("tidegate does not start: {error}"))?;
        let address = wait_for(&mut child, || {
            let text = fs::read_to_string(&stdout).ok()?;
            text.lines().find_map(|line| {
                line.strip_prefix("listening on http://")?
                    .trim_end_matches('/')
                    .parse()
                    .ok()
            })
        });
        address.map(|address| Self { child, address }).map_err(|error| {
            let log = fs::read_to_string(folder.join("tidegate.log")).unwrap_or_default();
            format!("tidegate {error}: {log}")
        })
    }

    /// Starts nginx with one worker as a plain reverse proxy in front of `upstream`.
    pub(crate) fn nginx(folder: &Path, upstream: SocketAddr) -> Result<Self, String> {
        let program = nginx_program().ok_or("nginx is not installed")?;
        let address = free_address()?;
        let config = folder.join("nginx.conf");
        fs::write(&config, nginx_config(folder, address, upstream)).map_err(|error| error.to_string())?;
        let mut child = Command::new(program)
            .arg("-p")
            .arg(folder)
            .arg("-e")
            .arg(folder.join("nginx.log"))
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nginx does not start: {error}"))?;
        wait_for(&mut child, || TcpStream::connect(address).ok().map(|_| address))
            .map(|address| Self { child, address })
            .map_err(|error| {
                let log = fs::read_to_string(folder.join("nginx.log")).unwrap_or_default();
                format!("nginx {error}: {log}")
            })
    }

    /// Returns the resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&self.child.id().to_string())
    }

    /// Returns the processor time that it and its children have used so far, in seconds.
    pub(crate) fn processor_seconds(&self) -> Option<f64> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let pids = children.split_whitespace().filter_map(|child| child.parse().ok());
        std::iter::once(pid).chain(pids).map(processor_seconds).sum()
    }
}

/// Returns the resident memory of this process in bytes.
pub(crate) fn own_resident_bytes() -> Option<u64> {
    resident_bytes("self")
}

fn resident_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Returns user and system time of a process; the kernel counts in hundredths of a second.
fn processor_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: Option<Vec<f64>> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|ticks| ticks.parse().ok())
        .collect();
    Some(ticks?.iter().sum::<f64>() / 100.0)
}

impl Drop for Process {
    fn drop(&mut self) {
        // SIGTERM lets nginx's master end its worker; a program that does not heed it is killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(child: &mut Child, found: impl Fn() -> Option<SocketAddr>) -> Result<SocketAddr, String> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(address) = found() {
            return Ok(address);
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("ended at once ({status})"));
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            return Err("does not listen".to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn nginx_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|folder| folder.join("nginx"))
        .find(|program| program.is_file())
}

/// Returns an address that was free a moment ago; nginx cannot say which port it was given.
fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .map_err(|error| error.to_string())
}

fn nginx_config(folder: &Path, listen: SocketAddr, upstream: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 20000;\npid {folder}/nginx.pid;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n  access_log off;\n  keepalive_requests 100000000;\n\
           client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  fastcgi_temp_path {folder}/fastcgi;\n\
           uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n\
           upstream provider {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}\n\
           server {{\n    listen {listen} backlog=4096;\n    location / {{\n      proxy_pass http://provider;\n\
               proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_buffering off;\n    }}\n  }}\n}}\n"
    )
}
