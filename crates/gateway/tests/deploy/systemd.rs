//! The systemd unit.

use crate::files::{END_ROOM, check_command, check_config, read, time};

const UNIT: &str = "deploy/systemd/tidegate.service";

/// What systemd 252 knows of what a service like this may want; `systemd-analyze verify` knows the rest.
const KNOWN: [(&str, &[&str]); 3] = [
    ("Unit", &["Description", "Documentation", "Wants", "After"]),
    (
        "Service",
        &[
            "AmbientCapabilities",
            "CapabilityBoundingSet",
            "DynamicUser",
            "EnvironmentFile",
            "ExecReload",
            "ExecStart",
            "KillMode",
            "KillSignal",
            "LimitNOFILE",
            "LockPersonality",
            "MemoryDenyWriteExecute",
            "NoNewPrivileges",
            "PrivateDevices",
            "PrivateTmp",
            "ProcSubset",
            "ProtectClock",
            "ProtectControlGroups",
            "ProtectHome",
            "ProtectHostname",
            "ProtectKernelLogs",
            "ProtectKernelModules",
            "ProtectKernelTunables",
            "ProtectProc",
            "ProtectSystem",
            "RemoveIPC",
            "Restart",
            "RestartSec",
            "RestrictAddressFamilies",
            "RestrictNamespaces",
            "RestrictRealtime",
            "RestrictSUIDSGID",
            "StateDirectory",
            "StateDirectoryMode",
            "SystemCallArchitectures",
            "SystemCallErrorNumber",
            "SystemCallFilter",
            "TimeoutStopSec",
            "Type",
            "UMask",
        ],
    ),
    ("Install", &["WantedBy"]),
];

/// Returns the settings: section, key, value.
fn settings() -> Vec<(String, String, String)> {
    let text = read(UNIT);
    let mut section = String::new();
    let mut settings = Vec::new();
    for line in text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if let Some(name) = line.strip_prefix('[') {
            name.strip_suffix(']').unwrap().clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').unwrap();
        settings.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    settings
}

fn values(key: &str) -> Vec<String> {
    let found = settings().into_iter().filter(|(_, found, _)| found == key);
    found.map(|(_, _, value)| value).collect()
}

#[test]
fn its_sections_and_keys_are_known() {
    for (section, key, _) in settings() {
        let known = KNOWN.iter().find(|(name, _)| *name == section);
        let (_, keys) = known.unwrap_or_else(|| panic!("[{section}]"));
        assert!(keys.contains(&key.as_str()), "[{section}] {key}");
    }
    for (section, _) in KNOWN {
        assert!(
            settings().iter().any(|(found, _, _)| found == section),
            "[{section}]"
        );
    }
}

#[test]
fn its_commands_are_the_program_s() {
    let mut commands = values("ExecStart");
    commands.append(&mut values("ExecReload"));
    let mut checked = 0;
    for command in &commands {
        let mut words = command.split(' ').map(ToOwned::to_owned);
        if words.next().unwrap() == "/usr/local/bin/tidegate" {
            check_command(&words.collect::<Vec<_>>());
            checked += 1;
        }
    }
    assert_eq!((commands.len(), checked), (3, 2));
    assert_eq!(commands[2], "/bin/kill -HUP $MAINPID");
}

/// The defaults are what the unit must be enough for.
#[test]
fn there_is_time_to_drain_and_there_are_sockets() {
    let server = check_config("", "defaults").server;
    let [stop] = values("TimeoutStopSec").try_into().unwrap();
    assert!(time(&stop.replace("min", "m")) >= server.stream_drain_timeout + END_ROOM);
    assert_eq!(
        (values("KillSignal"), values("KillMode")),
        (vec!["SIGTERM".to_owned()], vec!["mixed".to_owned()])
    );
    let [files] = values("LimitNOFILE").try_into().unwrap();
    assert!(files.parse::<usize>().unwrap() > 2 * server.connections_max);
}

#[test]
fn it_has_no_rights() {
    let switches = [
        "DynamicUser",
        "NoNewPrivileges",
        "ProtectHome",
        "PrivateDevices",
        "MemoryDenyWriteExecute",
    ];
    for key in switches {
        assert_eq!(values(key), ["yes"], "{key}");
    }
    assert_eq!(values("CapabilityBoundingSet"), [""]);
    assert_eq!(values("ProtectSystem"), ["strict"]);
    assert_eq!(
        values("StateDirectory"),
        ["tidegate"],
        "the program writes to $STATE_DIRECTORY"
    );
}
