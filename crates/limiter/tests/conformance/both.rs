//! One ledger in Redis and one in memory, which are given the same calls.

use redis::ConnectionLike;
use tidegate::store::wire::{self, Place};
use tidegate_core::ledger::{Call, Ledger, Reply, Wakening};

use super::redis_server::RedisServer;

/// The two ledgers of a group.
pub(crate) struct Both {
    pub(crate) memory: Ledger,
    pub(crate) redis: redis::Connection,
    pub(crate) place: Place,
    /// Calls that the script answered by its part for common ones, which says so to this suite alone.
    pub(crate) common: u64,
    script: String,
}

/// What both held at some moment.
pub(crate) struct Copy {
    memory: Ledger,
    dumps: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Both {
    pub(crate) fn new(server: &RedisServer, group: &str) -> Self {
        let mut redis = server.connect();
        let common = "if reply then return reply end";
        assert_eq!(wire::SCRIPT.matches(common).count(), 1);
        let telling = "if reply then reply[#reply + 1] = 'common' return reply end";
        let script = wire::SCRIPT.replace(common, telling);
        let load = redis::cmd("SCRIPT").arg("LOAD").arg(script).take();
        Self {
            memory: Ledger::new(),
            common: 0,
            script: load.query(&mut redis).expect("the script is well-formed"),
            redis,
            place: Place::new("tidegate", group),
        }
    }

    /// Gives a call to both, and returns the answer that they agree about. `context` says where the call comes from.
    pub(crate) fn call(&mut self, server_time: u64, call: &Call, context: &str) -> (Reply, Vec<Wakening>) {
        let before = self.memory.clone();
        let (reply, wakenings) = self.memory.call(server_time, call);
        let numbers = self
            .in_redis(server_time, call)
            .unwrap_or_else(|error| panic!("{context}: {error}\n{call:#?}\n{before:#?}"));
        let mut expected = reply.numbers();
        for wakening in &wakenings {
            expected.extend([wakening.replica, wakening.at]);
        }
        expected.push(wakenings.len() as u64);
        if numbers != expected {
            let read = wire::read_reply(&numbers);
            panic!(
                "{context}: the script answers otherwise\n{call:#?}\nbefore: {before:#?}\n\
                 memory: {reply:?} {wakenings:?}\nscript: {read:?}\nmemory: {expected:?}\nscript: {numbers:?}"
            );
        }
        (reply, wakenings)
    }

    /// Gives a call to the script alone.
    pub(crate) fn in_redis(&mut self, server_time: u64, call: &Call) -> redis::RedisResult<Vec<u64>> {
        let keys = self.place.keys(&call.limits);
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.script).arg(keys.len()).arg(keys);
        command.arg(server_time).arg(wire::write_call(call));
        let mut values: Vec<redis::Value> = command.query(&mut self.redis)?;
        if let Some(redis::Value::BulkString(_)) = values.last() {
            values.pop();
            self.common += 1;
        }
        redis::from_redis_value(redis::Value::Array(values)).map_err(Into::into)
    }

    /// Forgets everything.
    pub(crate) fn flush(&mut self) {
        self.memory = Ledger::new();
        self.command::<()>(&["FLUSHALL"]);
    }

    pub(crate) fn copy(&mut self) -> Copy {
        let mut dumps = Vec::new();
        for key in self.command::<Vec<Vec<u8>>>(&["KEYS", "*"]) {
            let dump = redis::cmd("DUMP")
                .arg(&key)
                .query(&mut self.redis)
                .expect("the key is there");
            dumps.push((key, dump));
        }
        Copy {
            memory: self.memory.clone(),
            dumps,
        }
    }

    /// Puts back what was there, as a server does that comes back with an old copy.
    pub(crate) fn restore(&mut self, copy: &Copy) {
        self.flush();
        self.memory = copy.memory.clone();
        for (key, dump) in &copy.dumps {
            let command = redis::cmd("RESTORE").arg(key).arg(0).arg(dump).take();
            command.query::<()>(&mut self.redis).expect("the dump is whole");
        }
    }

    pub(crate) fn command<T: redis::FromRedisValue>(&mut self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        let value = self.redis.req_command(&command).expect("the server obeys");
        redis::from_redis_value(value).expect("a value of this kind")
    }
}
