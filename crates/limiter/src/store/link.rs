//! One connection to one server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, ProtocolVersion, PushInfo, RedisConnectionInfo, Value,
};
use rustls::pki_types::ServerName;
use tidegate_core::escrow;
use tidegate_core::ledger::Call;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::fault::{Fault, StoreError};
use super::options::StoreOptions;
use super::server::Server;
use super::wire::{self, Place};

/// How servers are connected to.
pub(super) struct Dialer {
    pub(super) options: StoreOptions,
    pub(super) tls: Option<TlsConnector>,
    /// On which this process is told to call.
    pub(super) channel: String,
}

/// A connection that is ready for calls. Dropped by everybody, it is closed.
#[derive(Clone)]
pub(super) struct Link {
    connection: MultiplexedConnection,
    /// By which the server knows the scripts: of ledgers, and of the limits of tenants and routes.
    script: Arc<str>,
    escrow_script: Arc<str>,
    task: Arc<Task>,
}

/// The task that reads and writes.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Dialer {
    /// Makes a connection: who one is, what the server is, the script, and the channel on which one is told to call.
    pub(super) async fn dial(
        &self,
        address: &Address,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<(Link, Option<Server>), Fault> {
        let time = self.options.connect_timeout;
        let dialing = async {
            let stream = self.connect(address).await?;
            let config = AsyncConnectionConfig::new()
                .set_response_timeout(None)
                .set_pipeline_buffer_size(BUFFER)
                .set_push_sender(move |push| {
                    on_push(push);
                    Ok::<(), ()>(())
                });
            let info = self.info(true).set_protocol(ProtocolVersion::RESP3);
            let (connection, task) = MultiplexedConnection::new_with_config(&info, stream, config)
                .await
                .map_err(|error| Fault::of(&error))?;
            let task = Arc::new(Task(tokio::spawn(task).abort_handle()));
            let mut link = Link {
                connection,
                script: Arc::from(""),
                escrow_script: Arc::from(""),
                task,
            };
            let mut name = redis::cmd("CLIENT");
            name.arg("SETNAME").arg("tidegate");
            match run(&mut link.connection, &name).await {
                // Who it is matters to people only.
                Err(fault) if fault.error != StoreError::Script && !fault.is_about_rights() => {
                    return Err(fault);
                }
                _ => {}
            }
            let server = link.inspect().await?;
            if let Some(fault) = server.as_ref().and_then(Server::fault) {
                return Err(fault);
            }
            link.load().await?;
            let subscribed = link.connection.subscribe(&self.channel).await;
            subscribed.map_err(|error| Fault::of(&error))?;
            Ok((link, server))
        };
        in_time(time, "no connection was made", dialing).await
    }

    /// Asks one question over a connection of its own.
    pub(super) async fn ask(&self, address: &Address, question: &Cmd) -> Result<Value, Fault> {
        let asking = async {
            let mut with_password = self.options.password.is_some();
            loop {
                let stream = self.connect(address).await?;
                let config = AsyncConnectionConfig::new().set_response_timeout(None);
                let info = self.info(with_password);
                match MultiplexedConnection::new_with_config(&info, stream, config).await {
                    Ok((mut connection, task)) => {
                        let _task = Task(tokio::spawn(task).abort_handle());
                        return run(&mut connection, question).await;
                    }
                    Err(error) => {
                        let fault = Fault::of(&error);
                        // Sentinels often have no password where their server has one.
                        if !std::mem::take(&mut with_password) || fault.error != StoreError::Denied {
                            return Err(fault);
                        }
                    }
                }
            }
        };
        in_time(self.options.connect_timeout, "no connection was made", asking).await
    }

    fn info(&self, with_password: bool) -> RedisConnectionInfo {
        let mut info = RedisConnectionInfo::default()
            .set_skip_set_lib_name()
            .set_db(i64::from(self.options.database));
        if with_password && let Some(password) = &self.options.password {
            info = info.set_password(password);
            if let Some(user) = &self.options.user {
                info = info.set_username(user);
            }
        }
        info
    }

    /// Opens a socket; names are looked up each time.
    async fn connect(&self, address: &Address) -> Result<Box<dyn Stream>, Fault> {
        let of_io = |error| Fault::of_io(&error);
        let (host, port) = match address {
            Address::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(of_io)?;
                return Ok(Box::new(stream));
            }
            Address::Tcp(host, port) => (host.as_str(), *port),
        };
        let found = lookup_host((host, port))
            .await
            .map_err(|error| Fault::new(StoreError::Unresolved, error.to_string()))?;
        let mut last = Fault::new(StoreError::Unresolved, format!("{host} has no address"));
        for address in found {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(of_io)?;
                    return self.secure(host, stream).await;
                }
                Err(error) => last = Fault::of_io(&error),
            }
        }
        Err(last)
    }

    async fn secure(&self, host: &str, stream: TcpStream) -> Result<Box<dyn Stream>, Fault> {
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            Fault::new(
                StoreError::Tls,
                format!("no certificate can bear the name {host}"),
            )
        })?;
        // Less than all the time that there is: whoever is not answered says to what.
        let patience = self.options.connect_timeout * 9 / 10;
        match timeout(patience, tls.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(Fault::new(StoreError::Tls, why_no_tls(&error))),
            Err(_) => Err(Fault::new(
                StoreError::Timeout,
                format!("no answer in TLS; {PLAIN}"),
            )),
        }
    }
}

impl Link {
    /// Calls the ledger of a group. `asking`: the node does not own its keys yet.
    pub(super) async fn call(
        self,
        place: &Place,
        call: &Call,
        time: Duration,
        asking: bool,
    ) -> Result<Vec<u64>, Fault> {
        let keys = place.keys(&call.limits);
        let command = move |link: &Self| evaluate(&link.script, &keys, wire::write_call(call));
        self.run_script(command, time, asking).await
    }

    /// Calls the books of tenants and routes.
    pub(super) async fn call_escrow(
        self,
        prefix: &str,
        call: &escrow::Call,
        time: Duration,
        asking: bool,
    ) -> Result<Vec<u64>, Fault> {
        let keys = wire::escrow::keys(prefix, call);
        let command = move |link: &Self| evaluate(&link.escrow_script, &keys, wire::escrow::write_call(call));
        self.run_script(command, time, asking).await
    }

    /// Runs a script, which is loaded again if the server has forgotten it.
    async fn run_script(
        mut self,
        command: impl Fn(&Self) -> Cmd,
        time: Duration,
        asking: bool,
    ) -> Result<Vec<u64>, Fault> {
        for _ in 0..2 {
            let command = command(&self);
            let calling = async {
                if asking {
                    run_asking(&mut self.connection, command).await
                } else {
                    run(&mut self.connection, &command).await
                }
            };
            match in_time(time, "no answer came", calling).await {
                Ok(value) => return numbers(value),
                Err(fault) if fault.wants_script => {
                    in_time(time, "no answer came", self.load()).await?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::new(StoreError::Script, "it forgets the script at once"))
    }

    /// Asks what the server is; `None` without the right to ask, if it answers nevertheless.
    pub(super) async fn check(mut self, time: Duration) -> Result<Option<Server>, Fault> {
        in_time(time, "no answer came", self.inspect()).await
    }

    /// Returns whether both are the same connection.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.task, &other.task)
    }

    /// Ends the connection, and with it whatever is awaited of it.
    pub(super) fn end(&self) {
        self.task.0.abort();
    }

    async fn inspect(&mut self) -> Result<Option<Server>, Fault> {
        match run(&mut self.connection, &redis::cmd("INFO")).await {
            Ok(info) => Ok(String::from_redis_value(info)
                .ok()
                .map(|info| Server::parse(&info))),
            Err(fault) if fault.error == StoreError::Denied && fault.is_about_rights() => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    async fn load(&mut self) -> Result<(), Fault> {
        self.script = self.load_one(wire::SCRIPT).await?;
        self.escrow_script = self.load_one(wire::escrow::SCRIPT).await?;
        Ok(())
    }

    async fn load_one(&mut self, script: &str) -> Result<Arc<str>, Fault> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(script);
        let name = run(&mut self.connection, &command).await?;
        let name = String::from_redis_value(name).map_err(|_| unread())?;
        Ok(name.into())
    }
}

/// Makes the command that runs a script, which asks for the server's clock itself.
fn evaluate(script: &str, keys: &[String], call: Vec<u8>) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script).arg(keys.len()).arg(keys).arg(0).arg(call);
    command
}

/// Commands that may wait to be written; there is one for each group at most, and one about tenants and routes.
const BUFFER: usize = 256;

async fn run(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Fault> {
    let value = connection.send_packed_command(command).await;
    value
        .and_then(Value::extract_error)
        .map_err(|error| Fault::of(&error))
}

/// Runs a command at a node to which its keys are being moved.
async fn run_asking(connection: &mut MultiplexedConnection, command: Cmd) -> Result<Value, Fault> {
    let mut both = redis::pipe();
    both.cmd("ASKING").add_command(command);
    let values = connection.send_packed_commands(&both, 0, 2).await;
    values
        .and_then(|mut values| values.pop().unwrap_or(Value::Nil).extract_error())
        .map_err(|error| Fault::of(&error))
}

async fn in_time<T>(
    time: Duration,
    otherwise: &str,
    future: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match timeout(time, future).await {
        Ok(result) => result,
        Err(_) => Err(Fault::new(
            StoreError::Timeout,
            format!("{otherwise} within {} ms", time.as_millis()),
        )),
    }
}

/// What to do where a server does not speak TLS.
const PLAIN: &str = "the URL of a server without TLS begins with redis://";

/// Returns why there is no TLS. A server that does not speak it answers with something else, or not at all.
fn why_no_tls(error: &io::Error) -> String {
    let rustls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let is_plain = match rustls {
        Some(rustls::Error::InvalidMessage(_)) => true,
        Some(_) => false,
        None => error.kind() == io::ErrorKind::UnexpectedEof,
    };
    if is_plain {
        format!("{error}; {PLAIN}")
    } else {
        error.to_string()
    }
}

fn numbers(value: Value) -> Result<Vec<u64>, Fault> {
    let Value::Array(values) = value else {
        return Err(unread());
    };
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    values
        .iter()
        .map(number)
        .collect::<Option<_>>()
        .ok_or_else(unread)
}

pub(super) fn unread() -> Fault {
    Fault::new(StoreError::Reply, "its answer is not understood")
}
