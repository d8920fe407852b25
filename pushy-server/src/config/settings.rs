//! The manual of `server.toml`: every setting with its default and what it does.

/// One line of the manual: what `server.toml` may hold.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// Its default as written in the file; empty: there is none.
    pub default: &'static str,
    /// What it does, with its unit.
    pub help: &'static str,
}

/// Every setting, in the order of the manual.
pub const SETTINGS: &[Setting] = &[
    Setting { name: "api_listen", default: "\"127.0.0.1:10003\"", help: "address and port of the REST API" },
    Setting {
        name: "heartbeat_listen",
        default: "\"127.0.0.1:10000\"",
        help: "address and port where nodes hear the server's heartbeat",
    },
    Setting {
        name: "command_listen",
        default: "\"127.0.0.1:10002\"",
        help: "address and port where nodes talk with the server (CURVE)",
    },
    Setting {
        name: "advertise_host",
        default: "",
        help: "host name or address that nodes and users reach this server by; default: the address of api_listen, or this host's name when it listens on every address",
    },
    Setting {
        name: "advertise_heartbeat_addr",
        default: "",
        help: "heartbeat address told to nodes, \"tcp://HOST:PORT\"; default: advertise_host and the port of heartbeat_listen",
    },
    Setting {
        name: "advertise_command_addr",
        default: "",
        help: "command address told to nodes, \"tcp://HOST:PORT\"; default: advertise_host and the port of command_listen",
    },
    Setting {
        name: "advertise_api_url",
        default: "",
        help: "URL of the REST API written into configuration files to hand over; default: advertise_host and the port of api_listen",
    },
    Setting {
        name: "database",
        default: "",
        help: "\"postgres://USER:PASSWORD@HOST/DATABASE\", with ?host=/run/postgresql for a socket, ?sslmode=verify-full and &sslrootcert=FILE for TLS; default: the SQLite file pushy.db beside this file",
    },
    Setting {
        name: "keep_jobs_days",
        default: "0",
        help: "days until a finished job is deleted with its output; 0: never",
    },
    Setting {
        name: "keep_jobs",
        default: "100000",
        help: "finished jobs that are kept, the oldest are deleted first; 0: all",
    },
    Setting {
        name: "tls_cert",
        default: "",
        help: "PEM file: certificate chain of the REST API; needs tls_key",
    },
    Setting { name: "tls_key", default: "", help: "PEM file: private key of tls_cert" },
    Setting {
        name: "heartbeat_interval",
        default: "10.0",
        help: "seconds between two heartbeats, both directions",
    },
    Setting { name: "voting_timeout", default: "60.0", help: "seconds until a vote closes" },
    Setting {
        name: "default_run_timeout",
        default: "3600",
        help: "run_timeout of a job that names none, in seconds",
    },
    Setting { name: "rehab_timer", default: "1.0", help: "seconds between two aborts to a node in rehab" },
    Setting { name: "linger", default: "5.0", help: "seconds a finished job stays in memory" },
    Setting {
        name: "feed_keep_alive",
        default: "15.0",
        help: "seconds of silence after which an event feed says that it is alive",
    },
    Setting {
        name: "feed_retention",
        default: "60.0",
        help: "seconds an organization's event feed remembers",
    },
    Setting {
        name: "send_timeout",
        default: "30.0",
        help: "seconds after which a client that takes nothing of its answer loses its connection",
    },
    Setting {
        name: "config_lifetime",
        default: "3600",
        help: "seconds a node may use its configuration before fetching it again",
    },
    Setting {
        name: "max_message_skew",
        default: "300",
        help: "largest difference between a node's timestamp and the clock, in seconds",
    },
    Setting {
        name: "max_body_size",
        default: "65536",
        help: "largest message body taken from a node, in bytes",
    },
    Setting {
        name: "on_restart",
        default: "\"continue\"",
        help: "what becomes of unfinished jobs at a restart: \"continue\" or \"crash\"",
    },
    Setting {
        name: "validate_client_node_name",
        default: "true",
        help: "whether a node may fetch only its own configuration",
    },
    Setting {
        name: "max_nodes",
        default: "5000",
        help: "nodes this server must be able to hold; checked against the limit of open files at start",
    },
    Setting {
        name: "max_rest_connections",
        default: "0",
        help: "REST connections at once, feeds included; more are closed. 0: what the limit of open files leaves beside max_nodes, from 192 to 4096",
    },
    Setting {
        name: "max_output_streams",
        default: "1024",
        help: "listeners to the output of commands at once; each may hold up to a window of 360 KB, all of them together some 50 MB",
    },
    Setting {
        name: "max_connections_per_address",
        default: "0",
        help: "connections taken from one network address on each node port; 0: no limit",
    },
    Setting {
        name: "metrics_listen",
        default: "",
        help: "address and port of /metrics for Prometheus, with /healthz and /readyz, to whoever reaches it, e.g. \"127.0.0.1:10004\"; default: nowhere",
    },
    Setting {
        name: "log_level",
        default: "\"info\"",
        help: "least level of log lines: \"error\", \"warn\", \"info\", \"debug\" or \"trace\"; --log-level wins; taken over by a reload",
    },
    Setting {
        name: "audit_log",
        default: "",
        help: "file that says who started what where and who changed what, one JSON object a line; opened anew by a reload; default: none",
    },
    Setting {
        name: "trusted_proxies",
        default: "[]",
        help: "addresses and networks of front ends whose X-Forwarded-For the audit log believes, e.g. [\"127.0.0.1\", \"10.0.0.0/8\"]",
    },
    Setting {
        name: "drain_timeout",
        default: "600.0",
        help: "seconds that `pushy-server drain` waits for running jobs before the server stops all the same",
    },
    Setting {
        name: "tls_check_interval",
        default: "60.0",
        help: "seconds between two looks at tls_cert and tls_key, which are read again when they have changed",
    },
    Setting {
        name: "chef_server_url",
        default: "",
        help: "root of a Chef Infra Server that knows users, clients, organizations and groups, e.g. \"https://chef.example.com\"; without it this server's own directory does",
    },
    Setting {
        name: "chef_client_name",
        default: "",
        help: "user or client of the Chef server that questions are signed as; one that may read the groups is enough",
    },
    Setting { name: "chef_client_key", default: "", help: "PEM file: private key of chef_client_name" },
    Setting {
        name: "chef_organizations",
        default: "true",
        help: "whether the Chef server has organizations in its URLs; false for goiardi: needs chef_organization",
    },
    Setting {
        name: "chef_organization",
        default: "",
        help: "name of the one organization in front of a Chef server without organizations; its groups are kept by this server",
    },
    Setting {
        name: "chef_ca_file",
        default: "",
        help: "PEM file: CAs that the Chef server's certificate is checked against; default: the system's",
    },
    Setting {
        name: "chef_verify",
        default: "true",
        help: "whether the Chef server's certificate is checked; false is for trying things out",
    },
    Setting {
        name: "chef_timeout",
        default: "5.0",
        help: "seconds that one question to the Chef server may take",
    },
    Setting {
        name: "chef_principal_cache",
        default: "5.0",
        help: "seconds, at most 5, that a key or a membership is believed after it was asked for",
    },
    Setting {
        name: "chef_group_cache",
        default: "15.0",
        help: "seconds, at most 15, that a group's members are believed after they were asked for",
    },
];
