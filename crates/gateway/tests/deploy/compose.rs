//! The compose file, and what it mounts.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::files::{
    END_ROOM, at, check_command, check_config, memory, memory_needed, path, read, text, texts, time,
    variables, yaml,
};

const FOLDER: &str = "deploy/compose";
const GATEWAYS: [&str; 3] = ["gateway-1", "gateway-2", "gateway-3"];

fn compose() -> Value {
    yaml("deploy/compose/compose.yaml").remove(0)
}

fn service<'a>(compose: &'a Value, name: &str) -> &'a Value {
    at(compose, &format!("/services/{name}"))
}

fn toml() -> String {
    read("deploy/compose/tidegate.toml")
}

#[test]
fn its_services_are_these() {
    let compose = compose();
    let services = at(&compose, "/services").as_object().unwrap();
    let names: BTreeSet<_> = services.keys().map(String::as_str).collect();
    let others = ["balancer", "valkey", "mock", "prometheus"];
    assert_eq!(names, GATEWAYS.into_iter().chain(others).collect());
    for (name, service) in services {
        let image = text(service, "/image");
        let (image, tag) = image.rsplit_once(':').unwrap();
        assert!(tag != "latest" && !image.contains('.'), "{name}: {image}:{tag}");
        for needed in service
            .get("depends_on")
            .map_or(vec![], |_| texts(service, "/depends_on"))
        {
            assert!(services.contains_key(&needed), "{name} needs {needed}");
        }
    }
}

#[test]
fn what_it_builds_from_and_mounts_is_there() {
    let compose = compose();
    for (name, service) in at(&compose, "/services").as_object().unwrap() {
        if let Some(build) = service.get("build") {
            let context = path(FOLDER).join(text(build, "/context"));
            assert!(context.join(text(build, "/dockerfile")).is_file(), "{name}");
            assert!(context.join(".dockerignore").is_file(), "{name}");
        }
        for volume in service
            .get("volumes")
            .map_or(vec![], |_| texts(service, "/volumes"))
        {
            let mut parts = volume.split(':');
            let source = parts.next().unwrap();
            if source.starts_with('.') {
                assert!(path(FOLDER).join(source).is_file(), "{name}: {source}");
                assert_eq!(parts.nth(1), Some("ro"), "{name}: {volume}");
            } else {
                assert!(
                    compose["volumes"].as_object().unwrap().contains_key(source),
                    "{name}: {source}"
                );
            }
        }
        for secret in service
            .get("secrets")
            .map_or(vec![], |_| texts(service, "/secrets"))
        {
            at(&compose, &format!("/secrets/{secret}"));
        }
        for port in service.get("ports").map_or(vec![], |_| texts(service, "/ports")) {
            assert!(
                port.starts_with("127.0.0.1:"),
                "{name}: {port} is open to the network"
            );
        }
    }
}

#[test]
fn the_gateways_and_the_mock_start() {
    let compose = compose();
    let config = check_config(&toml(), "compose/tidegate.toml");
    // The mock's key is none, and it stays in the compose network.
    let warnings: Vec<_> = config
        .warnings
        .iter()
        .map(|warning| warning.what.as_str())
        .collect();
    assert_eq!(warnings, ["`upstreams[0].api_key` goes to mock in clear text"]);
    let mounted = "./tidegate.toml:/etc/tidegate/tidegate.toml:ro";
    for name in GATEWAYS {
        let service = service(&compose, name);
        let command = texts(service, "/command");
        check_command(&command);
        assert!(command.contains(&"/etc/tidegate/tidegate.toml".to_owned()));
        assert_eq!(texts(service, "/volumes"), [mounted]);
        let environment = at(service, "/environment").as_object().unwrap();
        let given: BTreeSet<_> = environment.keys().cloned().collect();
        assert_eq!(given, variables(&toml()), "{name}");
        assert!(time(text(service, "/stop_grace_period")) >= config.server.stream_drain_timeout + END_ROOM);
        assert!(
            memory(text(service, "/mem_limit")) >= memory_needed(&config),
            "{}",
            memory_needed(&config)
        );
        let files = at(service, "/ulimits/nofile").as_u64().unwrap();
        assert!(files > 2 * config.server.connections_max as u64);
    }
    let mock = texts(service(&compose, "mock"), "/command");
    check_command(&mock);
    let upstream = &config.upstreams[0];
    assert_eq!(
        upstream.base_url.to_string().trim_end_matches('/'),
        "http://mock:9001"
    );
    let enforced = |flag: &str| {
        let at = mock.iter().position(|word| word == flag).unwrap();
        mock[at + 1].parse::<u64>().unwrap()
    };
    let limits: Vec<_> = upstream.groups[0]
        .limits
        .iter()
        .map(|limit| limit.amount.get())
        .collect();
    assert_eq!(limits, [enforced("--rpm"), enforced("--tpm")]);
}

/// What others ask of the gateways is where they listen.
#[test]
fn every_port_is_one_that_something_listens_on() {
    let compose = compose();
    let server = check_config(&toml(), "compose/tidegate.toml").server;
    let (clients, admin) = (server.listen.port(), server.admin.unwrap().listen.port());
    for (at, name) in GATEWAYS.iter().enumerate() {
        let ports = texts(service(&compose, name), "/ports");
        assert_eq!(ports, [format!("127.0.0.1:{}:{admin}", admin as usize + at + 1)]);
    }

    let prometheus = &yaml("deploy/compose/prometheus.yml")[0];
    let job = at(prometheus, "/scrape_configs/0");
    assert_eq!(
        texts(job, "/static_configs/0/targets"),
        GATEWAYS.map(|name| format!("{name}:{admin}"))
    );
    assert_eq!(text(job, "/metrics_path"), "/metrics");
    let secrets = texts(service(&compose, "prometheus"), "/secrets");
    let credentials = text(job, "/authorization/credentials_file");
    assert_eq!(credentials, format!("/run/secrets/{}", secrets[0]));
    assert_eq!(
        text(&compose, "/secrets/admin_token/environment"),
        "TIDEGATE_ADMIN_TOKEN"
    );

    let balancer = read("deploy/compose/haproxy.cfg");
    let servers: Vec<_> = balancer
        .lines()
        .filter_map(|line| line.trim().strip_prefix("server "))
        .map(ToOwned::to_owned)
        .collect();
    assert_eq!(servers, GATEWAYS.map(|name| format!("{name} {name}:{clients}")));
    assert!(balancer.contains("httpchk GET /readyz\n") && balancer.contains(&format!("check port {admin} ")));
    let patience = balancer
        .lines()
        .find_map(|line| line.trim().strip_prefix("timeout server "));
    let config = check_config(&toml(), "compose/tidegate.toml");
    let longest = config.queue.wait_max + config.upstreams[0].first_byte_timeout;
    assert!(time(patience.unwrap()) > longest);
    assert_eq!(
        text(&compose, "/services/balancer/ports/0"),
        "127.0.0.1:8080:8080"
    );
}

/// The variables that the file wants of whoever starts it have an example each.
#[test]
fn the_example_of_variables_is_complete() {
    let compose = read("deploy/compose/compose.yaml");
    let example = read("deploy/compose/.env.example");
    let wanted: BTreeSet<_> = compose
        .split("${")
        .skip(1)
        .map(|rest| rest.split([':', '}']).next().unwrap())
        .collect();
    for name in wanted {
        assert!(example.contains(&format!("{name}=")), "{name}");
    }
}
