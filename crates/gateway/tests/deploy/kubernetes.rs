//! The Kubernetes manifests.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tidegate_gateway::admin::{AdminServer, AdminState};
use tidegate_gateway::config::Config;
use tidegate_gateway::metrics::Metrics;

use crate::files::{
    END_ROOM, at, check_command, check_config, memory, memory_needed, path, text, texts, variables, yaml,
};

const FOLDER: &str = "deploy/kubernetes";
const PROBES: [&str; 3] = ["startupProbe", "readinessProbe", "livenessProbe"];

/// Returns every object of the kustomization, and of what stands beside it.
fn objects() -> Vec<Value> {
    let mut objects = Vec::new();
    for entry in std::fs::read_dir(path(FOLDER)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "kustomization.yaml" && name != "secret.yaml" {
            objects.append(&mut yaml(&format!("{FOLDER}/{name}")));
        }
    }
    objects
}

fn object(kind: &str, name: &str) -> Value {
    let found = objects()
        .into_iter()
        .find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name);
    found.unwrap_or_else(|| panic!("there is no {kind} called {name}"))
}

fn toml() -> String {
    text(&object("ConfigMap", "tidegate"), "/data/tidegate.toml").to_owned()
}

fn config() -> Config {
    check_config(&toml(), "configmap.yaml")
}

/// Returns the specification of the gateways' pods.
fn pod() -> Value {
    at(&object("Deployment", "tidegate"), "/spec/template/spec").clone()
}

fn container() -> Value {
    at(&pod(), "/containers/0").clone()
}

/// Returns the port that a container calls by a name.
fn port(container: &Value, name: &str) -> u64 {
    let ports = at(container, "/ports").as_array().unwrap();
    let port = ports.iter().find(|port| text(port, "/name") == name);
    at(port.unwrap_or_else(|| panic!("no port {name}")), "/containerPort")
        .as_u64()
        .unwrap()
}

#[test]
fn the_kustomization_has_every_file_but_secrets_and_what_needs_an_operator() {
    let kustomization = &yaml("deploy/kubernetes/kustomization.yaml")[0];
    let mut listed: BTreeSet<_> = texts(kustomization, "/resources").into_iter().collect();
    listed
        .extend(["kustomization.yaml", "secret.example.yaml", "servicemonitor.yaml"].map(ToOwned::to_owned));
    let there: BTreeSet<_> = std::fs::read_dir(path(FOLDER))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "secret.yaml")
        .collect();
    assert_eq!(there, listed);
    let image = text(kustomization, "/images/0/name");
    assert_eq!(text(&container(), "/image"), image);
    assert_eq!(text(kustomization, "/images/0/newTag"), env!("CARGO_PKG_VERSION"));
    let namespace = text(kustomization, "/namespace");
    for object in objects() {
        if let Some(given) = object.pointer("/metadata/namespace") {
            assert_eq!(given, namespace, "{object}");
        }
    }
}

#[test]
fn the_gateways_start_with_what_they_are_given() {
    let container = container();
    let args = texts(&container, "/args");
    check_command(&args);
    let mount = at(&container, "/volumeMounts/0");
    let file = format!("{}/tidegate.toml", text(mount, "/mountPath"));
    assert!(args.contains(&file), "{args:?}");
    assert!(mount.get("subPath").is_none(), "the file would never change");

    let config = config();
    assert_eq!(config.warnings, []);
    let server = config.server;
    assert_eq!(port(&container, "clients"), u64::from(server.listen.port()));
    assert_eq!(
        port(&container, "admin"),
        u64::from(server.admin.unwrap().listen.port())
    );
    assert!(
        server.listen.ip().is_unspecified(),
        "others reach it by its pod's address"
    );

    let secret = object("Secret", "tidegate");
    let template = at(&secret, "/stringData").as_object().unwrap();
    let mut given = BTreeSet::new();
    for variable in at(&container, "/env").as_array().unwrap() {
        let name = text(variable, "/name");
        assert_eq!(text(variable, "/valueFrom/secretKeyRef/name"), "tidegate");
        let key = text(variable, "/valueFrom/secretKeyRef/key");
        assert!(text(&secret, &format!("/stringData/{key}")).contains("REPLACE_ME"));
        given.insert(name.to_owned());
    }
    assert_eq!(given, variables(&toml()));
    assert_eq!(given, template.keys().cloned().collect());
}

/// The admin listener is asked what the probes ask.
#[test]
fn probes_are_answered_without_a_token_and_metrics_with_it() {
    let container = container();
    let monitor = object("ServiceMonitor", "tidegate");
    let config = Arc::new(config());
    let token = "Authorization: Bearer sk-TIDEGATE_ADMIN_TOKEN\r\n";
    let limiter = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let plan = config.plan();
    let limiter = limiter.block_on(async { tidegate::Limiter::new(plan) });
    let state = AdminState::new(Arc::new(Metrics::new()), config, move || limiter.snapshot());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = AdminServer::start(listener, Arc::clone(&state)).unwrap();

    for probe in PROBES {
        let probe = at(&container, &format!("/{probe}/httpGet"));
        assert_eq!(text(probe, "/port"), "admin");
    }
    let asked = |probe: &str| {
        let asked = text(&container, &format!("/{probe}/httpGet/path")).to_owned();
        get(admin.address(), &asked, "")
    };
    assert_eq!(PROBES.map(asked), [503, 503, 200], "while it starts");
    state.listening();
    assert_eq!(PROBES.map(asked), [200; 3], "while it serves");
    state.draining();
    assert_eq!(PROBES.map(asked), [503, 503, 200], "while it drains");

    let metrics = text(&monitor, "/spec/endpoints/0/path");
    assert_eq!(get(admin.address(), metrics, ""), 401);
    assert_eq!(get(admin.address(), metrics, token), 200);
    let credentials = at(&monitor, "/spec/endpoints/0/authorization/credentials");
    assert_eq!(text(credentials, "/key"), "TIDEGATE_ADMIN_TOKEN");
    at(
        &object("Secret", text(credentials, "/name")),
        "/stringData/TIDEGATE_ADMIN_TOKEN",
    );
}

/// Returns the status of an answer.
fn get(address: SocketAddr, path: &str, header: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n{header}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Nobody is killed before the drain is over, and traffic is gone before it begins.
#[test]
fn there_is_time_to_drain() {
    let pod = pod();
    let grace = at(&pod, "/terminationGracePeriodSeconds").as_u64().unwrap();
    let before = at(&pod, "/containers/0/lifecycle/preStop/sleep/seconds")
        .as_u64()
        .unwrap();
    let drain = config().server.stream_drain_timeout;
    assert!(before >= 5);
    assert!(Duration::from_secs(grace - before) >= drain + END_ROOM);
}

#[test]
fn there_is_always_one_that_serves() {
    let deployment = object("Deployment", "tidegate");
    assert_eq!(at(&deployment, "/spec/strategy/rollingUpdate/maxUnavailable"), 0);
    let replicas = at(&deployment, "/spec/replicas").as_u64().unwrap();
    let budget = object("PodDisruptionBudget", "tidegate");
    assert!(at(&budget, "/spec/maxUnavailable").as_u64().unwrap() < replicas);
    let selector = at(&deployment, "/spec/selector/matchLabels");
    assert_eq!(at(&budget, "/spec/selector/matchLabels"), selector);
}

#[test]
fn there_is_memory_for_what_the_configuration_allows() {
    let needed = memory_needed(&config());
    let limit = memory(text(&container(), "/resources/limits/memory"));
    assert!(limit >= needed, "{limit} bytes, but {needed} may be needed");
}

#[test]
fn nobody_is_root() {
    for pod in [
        pod(),
        at(&object("StatefulSet", "valkey"), "/spec/template/spec").clone(),
    ] {
        assert_eq!(at(&pod, "/securityContext/runAsNonRoot"), true);
        assert_eq!(
            text(&pod, "/securityContext/seccompProfile/type"),
            "RuntimeDefault"
        );
        assert_eq!(at(&pod, "/automountServiceAccountToken"), false);
        for container in at(&pod, "/containers").as_array().unwrap() {
            let context = at(container, "/securityContext");
            assert_eq!(at(context, "/allowPrivilegeEscalation"), false);
            assert_eq!(at(context, "/readOnlyRootFilesystem"), true);
            assert_eq!(texts(context, "/capabilities/drop"), ["ALL"]);
        }
    }
}

/// Selectors find pods, and the ports that are named exist there.
#[test]
fn selectors_and_ports_fit() {
    let workloads = [object("Deployment", "tidegate"), object("StatefulSet", "valkey")];
    let selected = |selector: &Value| {
        let found = workloads.iter().find(|workload| {
            let labels = at(workload, "/spec/template/metadata/labels")
                .as_object()
                .unwrap();
            let wanted = selector.as_object().unwrap();
            wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
        });
        at(
            found.unwrap_or_else(|| panic!("nothing has {selector}")),
            "/spec/template/spec/containers/0",
        )
    };
    for workload in &workloads {
        let own = selected(at(workload, "/spec/selector/matchLabels"));
        assert_eq!(own, at(workload, "/spec/template/spec/containers/0"));
    }
    let mut seen = 0;
    for object in objects() {
        match text(&object, "/kind") {
            "Service" => {
                let container = selected(at(&object, "/spec/selector"));
                for given in at(&object, "/spec/ports").as_array().unwrap() {
                    let target = port(container, text(given, "/targetPort"));
                    assert_eq!(at(given, "/port").as_u64(), Some(target));
                    seen += 1;
                }
            }
            "NetworkPolicy" => {
                let container = selected(at(&object, "/spec/podSelector/matchLabels"));
                for rule in at(&object, "/spec/ingress").as_array().unwrap() {
                    let Some(ports) = rule.get("ports") else { continue };
                    for given in ports.as_array().unwrap() {
                        port(container, text(given, "/port"));
                        seen += 1;
                    }
                }
            }
            _ => {}
        }
    }
    assert_eq!(seen, 6);
    let monitor = object("ServiceMonitor", "tidegate");
    let service = object("Service", "tidegate-admin");
    assert_eq!(
        at(&monitor, "/spec/selector/matchLabels"),
        at(&service, "/metadata/labels")
    );
    assert_eq!(
        text(&monitor, "/spec/endpoints/0/port"),
        text(&service, "/spec/ports/0/name")
    );
    let redis = object("Secret", "tidegate");
    assert!(text(&redis, "/stringData/REDIS_URL").ends_with("@valkey:6379"));
}
