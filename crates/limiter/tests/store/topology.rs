//! Clusters, and servers that sentinels know.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tidegate::core::{Dimension, Standing};
use tidegate::{Limiter, Plan, QuotaKey, QuotaPlan, Request, StoreOptions, StoreState};

use super::tenants::{limit, of_a, tenant};
use super::{RedisServer, ask, plan, request, soon, standing, until};

const HOUR: Duration = Duration::from_secs(3_600);

fn told(server: &RedisServer, command: &[&str]) -> String {
    let mut cmd = redis::cmd(command[0]);
    cmd.arg(&command[1..]);
    cmd.query(&mut server.connect()).unwrap()
}

/// Two nodes of a cluster, each with half of the slots.
async fn cluster() -> [RedisServer; 2] {
    let start = || RedisServer::start_with(&["--save", "", "--cluster-enabled", "yes"]);
    let nodes = [start(), start()];
    ask(&nodes[0], &["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    ask(&nodes[1], &["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    // Two that start at once have the same number, which decides who is right.
    ask(&nodes[1], &["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
    let port = nodes[1].port().to_string();
    ask(&nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &port]);
    until("the cluster is whole", || {
        nodes.iter().all(|node| {
            told(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
                && told(node, &["CLUSTER", "NODES"]).lines().count() == 2
        })
    })
    .await;
    nodes
}

/// A plan with many groups, so that some are at either node.
fn groups() -> Plan {
    let one = plan(2, HOUR);
    let quotas = (0..16).map(|number| QuotaPlan {
        name: format!("group-{number}"),
        ..one.quotas[0].clone()
    });
    Plan {
        quotas: quotas.collect(),
        ..one
    }
}

fn of(number: usize) -> Request {
    Request {
        quota: QuotaKey::named(&format!("group-{number}")),
        ..request()
    }
}

fn at_cluster(seed: &RedisServer) -> Limiter {
    let options = StoreOptions::redis(&seed.tcp_url()).unwrap();
    Limiter::with_store(groups(), options.cluster().trust_empty(true)).unwrap()
}

#[tokio::test]
async fn a_cluster_is_found_from_any_of_its_nodes() {
    let nodes = cluster().await;
    let limiters = [at_cluster(&nodes[0]), at_cluster(&nodes[1])];
    for number in 0..16 {
        for limiter in &limiters {
            let permit = soon("a permit", limiter.acquire(of(number))).await.unwrap();
            drop(permit);
        }
    }
    for limiter in &limiters {
        let status = limiter.store_status().unwrap();
        assert_eq!(status.nodes.len(), 2, "{status:?}");
        assert_eq!(status.state, StoreState::Connected, "{status:?}");
        let late = Request {
            deadline: limiter.now() + Duration::from_millis(300),
            ..of(3)
        };
        soon("an answer", limiter.acquire(late)).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_tenants_limit_is_kept_at_one_node_of_a_cluster() {
    let nodes = cluster().await;
    let limiters = [&nodes[0], &nodes[1]].map(|node| {
        let options = StoreOptions::redis(&node.tcp_url()).unwrap();
        let plan = tenant(vec![limit(Dimension::Requests, 6)], Vec::new());
        Limiter::with_store(plan, options.cluster().trust_empty(true)).unwrap()
    });
    for round in 0..6 {
        soon("a permit", limiters[round % 2].acquire(of_a()))
            .await
            .unwrap();
    }
    for limiter in &limiters {
        let late = Request {
            deadline: limiter.now() + Duration::from_millis(700),
            ..of_a()
        };
        soon("an answer", limiter.acquire(late)).await.unwrap_err();
        let status = limiter.store_status().unwrap();
        assert!(status.errors.is_empty(), "{status:?}");
    }
}

#[tokio::test]
async fn slots_that_have_moved_are_followed() {
    let nodes = cluster().await;
    let limiter = at_cluster(&nodes[0]);
    drop(soon("a permit", limiter.acquire(of(0))).await.unwrap());
    // Half of the slots without keys change sides: a node without slots would become a replica.
    let ids: Vec<String> = nodes
        .iter()
        .map(|node| told(node, &["CLUSTER", "MYID"]))
        .collect();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut nodes[0].connect())
        .unwrap();
    let other: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut nodes[1].connect())
        .unwrap();
    let key = keys.iter().chain(&other).next().unwrap();
    let held: u16 = redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(key)
        .query(&mut nodes[0].connect())
        .unwrap();
    for (owner, range) in [(1, 0..4096_u16), (0, 8192..12288)] {
        for node in [&nodes[owner], &nodes[1 - owner]] {
            let mut pipe = redis::pipe();
            for slot in range.clone().filter(|slot| *slot != held) {
                pipe.cmd("CLUSTER")
                    .arg("SETSLOT")
                    .arg(slot)
                    .arg("NODE")
                    .arg(&ids[owner])
                    .ignore();
            }
            pipe.query::<()>(&mut node.connect()).unwrap();
        }
    }
    for number in 0..16 {
        drop(soon("a permit", limiter.acquire(of(number))).await.unwrap());
    }
    let status = limiter.store_status().unwrap();
    assert!(
        status.errors.iter().any(|(error, _)| error.name() == "moved"),
        "{status:?}"
    );
    until("it is as it should be", || {
        limiter.store_status().unwrap().state == StoreState::Connected
    })
    .await;
}

#[tokio::test]
async fn who_comes_while_a_slot_is_on_its_way_is_served_where_it_arrives() {
    let nodes = cluster().await;
    let limiter = at_cluster(&nodes[0]);
    let first = soon("a permit", limiter.acquire(of(0))).await.unwrap();
    let keys_of = |node: &RedisServer| -> Vec<String> {
        redis::cmd("KEYS").arg("*").query(&mut node.connect()).unwrap()
    };
    let from = usize::from(keys_of(&nodes[0]).is_empty());
    let (from, to) = (&nodes[from], &nodes[1 - from]);
    let keys = keys_of(from);
    let slot = redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(&keys[0])
        .query::<u16>(&mut from.connect());
    let slot = slot.unwrap().to_string();
    let [source, target] = [from, to].map(|node| told(node, &["CLUSTER", "MYID"]));
    ask(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]);
    ask(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]);
    let port = to.port().to_string();
    let mut migrate = redis::cmd("MIGRATE");
    migrate
        .arg(&["127.0.0.1", &port, "", "0", "5000", "KEYS"])
        .arg(&keys);
    migrate.exec(&mut from.connect()).unwrap();
    // The keys are at the other node, which does not own them yet.
    let waiting = tokio::spawn({
        let limiter = limiter.clone();
        async move { limiter.acquire(of(0)).await }
    });
    until("it was sent on", || {
        let errors = limiter.store_status().unwrap().errors;
        errors.iter().any(|(error, _)| error.name() == "moved")
    })
    .await;
    for node in [to, from] {
        ask(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &target]);
    }
    let second = soon("a permit", waiting).await.unwrap().unwrap();
    // What was charged before has moved with the slot: the limit is two.
    let late = Request {
        deadline: limiter.now() + Duration::from_millis(300),
        ..of(0)
    };
    soon("an answer", limiter.acquire(late)).await.unwrap_err();
    drop((first, second));
}

#[tokio::test]
async fn a_node_that_belongs_to_a_cluster_is_named() {
    let nodes = cluster().await;
    let options = StoreOptions::redis(&nodes[0].tcp_url())
        .unwrap()
        .trust_empty(true);
    let limiter = Limiter::with_store(groups(), options).unwrap();
    let waiters: Vec<_> = (0..16)
        .map(|number| {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.acquire(of(number)).await })
        })
        .collect();
    until("it is told", || {
        let status = limiter.store_status().unwrap();
        status.errors.iter().any(|(error, _)| error.name() == "moved")
    })
    .await;
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
}

/// A sentinel that ends with the test.
struct Sentinel {
    port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn start(server: &RedisServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let path = folder.path().join("sentinel.conf");
        let mut file = std::fs::File::create(&path).unwrap();
        writeln!(
            file,
            "port {port}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\n",
            server.port()
        )
        .unwrap();
        let mut child = Command::new("redis-server")
            .arg(&path)
            .arg("--sentinel")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_ready = |line: String| line.contains("+monitor master main");
        assert!(
            lines.by_ref().map_while(Result::ok).any(is_ready),
            "the sentinel does not start"
        );
        std::thread::spawn(move || lines.count());
        Self {
            port,
            child,
            _folder: folder,
        }
    }

    fn ask(&self, command: &[&str]) {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port)).unwrap();
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query::<redis::Value>(&mut client.get_connection().unwrap())
            .unwrap();
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn sentinels_are_asked_where_the_server_is() {
    let (mut first, second) = (RedisServer::start(), RedisServer::start());
    let sentinel = Sentinel::start(&first);
    let url = format!("redis://127.0.0.1:{}", sentinel.port);
    let options = StoreOptions::redis(&url)
        .unwrap()
        .sentinel("main")
        .trust_empty(true);
    let limiter = Limiter::with_store(plan(100, HOUR), options).unwrap();
    drop(soon("a permit", limiter.acquire(request())).await.unwrap());
    let address = |server: &RedisServer| format!("127.0.0.1:{}", server.port());
    assert_eq!(limiter.store_status().unwrap().nodes[0].address, address(&first));
    sentinel.ask(&["SENTINEL", "REMOVE", "main"]);
    let port = second.port().to_string();
    sentinel.ask(&["SENTINEL", "MONITOR", "main", "127.0.0.1", &port, "1"]);
    first.kill();
    until("the other is in use", || {
        let status = limiter.store_status().unwrap();
        status.state == StoreState::Connected && status.nodes[0].address == address(&second)
    })
    .await;
    // It has lost what the first knew, and says so.
    until("what was lost is found out", || {
        standing(&limiter) == Standing::Learning
    })
    .await;
}

#[tokio::test]
async fn a_name_that_sentinels_do_not_know_is_told() {
    let server = RedisServer::start();
    let sentinel = Sentinel::start(&server);
    let url = format!("redis://127.0.0.1:{}", sentinel.port);
    let options = StoreOptions::redis(&url).unwrap().sentinel("other");
    let limiter = Limiter::with_store(plan(100, HOUR), options).unwrap();
    until("it is told", || {
        let status = limiter.store_status().unwrap();
        status.state == StoreState::Unreachable
            && status
                .error
                .is_some_and(|error| error.contains("know no server called other"))
    })
    .await;
}
