//! Settings: files in the wild, precedence, and errors that name file and setting (7.9, decision 1).

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Parser;
use pushy_agent::log::{Level, Location};
use pushy_agent::{Args, Config};
use tempfile::TempDir;

fn pem() -> &'static [u8] {
    static PEM: OnceLock<Vec<u8>> = OnceLock::new();
    PEM.get_or_init(|| {
        let key = openssl::rsa::Rsa::generate(2048).expect("a key");
        key.private_key_to_pem().expect("PEM")
    })
}

struct Bench {
    dir: TempDir,
}

impl Bench {
    fn new() -> Bench {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("client.pem");
        std::fs::write(&key, pem()).expect("written");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).expect("changed");
        Bench { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Loads a file of this name and text with further arguments.
    fn load_file(&self, name: &str, text: &str, arguments: &[&str]) -> Result<Config, String> {
        std::fs::write(self.path(name), text).expect("written");
        let file = self.path(name).display().to_string();
        let all = ["push-jobs-client", "-c", &file].into_iter().chain(arguments.iter().copied());
        let args = Args::try_parse_from(all).map_err(|error| error.to_string())?;
        Config::load(args).map_err(|error| error.to_string())
    }

    /// A file with the least that is needed and `more`.
    fn load(&self, more: &str, arguments: &[&str]) -> Result<Config, String> {
        let text = format!(
            "chef_server_url 'https://chef.example.com/organizations/acme'\nnode_name 'web1'\n\
             client_key File.join(__dir__, 'client.pem')\n{more}\n"
        );
        self.load_file("push-jobs-client.rb", &text, arguments)
    }
}

fn original(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs").join(name);
    std::fs::read_to_string(path).expect("a test file")
}

#[test]
fn files_of_the_original_cookbook_are_read() {
    let bench = Bench::new();
    let key = bench.path("client.pem").display().to_string();
    for name in ["push-jobs-client.default.rb", "push-jobs-client.all.rb"] {
        let config = bench.load_file(name, &original(name), &["-k", &key]).expect(name);
        assert!(config.chef_server_url.contains("/organizations/"), "{name}");
        assert!(!config.whitelist.is_empty(), "{name}");
        if name.contains("all") {
            let proxy = config.proxy.https.expect("a proxy");
            assert_eq!(proxy, "http://nora:p%3Aw@proxy.example.com:3128");
            assert!(config.tls.no_verify);
        }
    }
}

#[test]
fn defaults_are_the_originals() {
    let config = Bench::new().load("", &[]).expect("read");
    assert_eq!(config.node_name.as_str(), "web1");
    assert_eq!(config.client_name, "web1");
    assert_eq!(config.org.as_str(), "acme");
    assert_eq!(config.max_body_size, 63_000);
    assert_eq!(config.policy.grace.as_secs(), 3);
    assert_eq!(config.policy.allowed_overwritable_env_vars, None);
    assert_eq!(config.policy.chef_lock, Path::new("/var/chef/cache/chef-client-running.pid"));
    assert!(config.whitelist.look_up("chef-client").is_some());
    assert_eq!(config.log.level, Level::Info);
    assert_eq!(config.log.location, Location::Stdout);
    assert!(!config.tls.no_verify);
    assert!(config.notices.is_empty(), "{:?}", config.notices);
}

#[test]
fn the_command_line_wins() {
    let bench = Bench::new();
    let other = bench.path("other.pem");
    std::fs::write(&other, pem()).expect("written");
    let other = other.display().to_string();
    let arguments = [
        ["-N", "web2"],
        ["-S", "http://push/organizations/other"],
        ["-M", "2000"],
        ["-d", "/files"],
        ["-l", "debug"],
        ["-L", "/tmp/agent.log"],
        ["-k", &other],
    ]
    .concat();
    let more = "max_body_size 5000\nfile_dir '/x'\nlog_level :warn\nlog_location STDERR";
    let config = bench.load(more, &arguments).expect("read");
    assert_eq!(config.node_name.as_str(), "web2");
    assert_eq!(config.chef_server_url, "http://push/organizations/other");
    assert_eq!(config.org.as_str(), "other");
    assert_eq!(config.max_body_size, 2000);
    assert_eq!(config.policy.file_dir, Path::new("/files"));
    assert_eq!(config.log.level, Level::Debug);
    assert_eq!(config.log.location, Location::File("/tmp/agent.log".into()));
    assert_eq!(config.client_key_path.display().to_string(), other);
    let config = bench.load(more, &[]).expect("read");
    assert_eq!(config.max_body_size, 5000);
    assert_eq!(config.policy.file_dir, Path::new("/x"));
    assert_eq!(config.log.level, Level::Warn);
    assert_eq!(config.log.location, Location::Stderr);
}

#[test]
fn long_options_are_spelt_as_the_originals() {
    let all = [
        "push-jobs-client",
        "--config=a",
        "--log_level=info",
        "--logfile=b",
        "--node-name=c",
        "--max-body-size=2000",
        "--server=d",
        "--client_key=e",
        "--file_dir=f",
        "--allow_unencrypted",
    ];
    let args = Args::try_parse_from(all).expect("parsed");
    assert!(args.allow_unencrypted && args.file_dir == Some("f".into()) && args.server == Some("d".into()));
    assert!(Args::try_parse_from(["push-jobs-client", "--version"]).expect("parsed").version);
    assert!(Args::try_parse_from(["push-jobs-client", "-v"]).expect("parsed").version);
}

/// Decision 44.
#[test]
fn what_the_server_is_told_of_the_node() {
    let document = |more: &str| Bench::new().load(more, &[]).expect("read").document;
    let told = document(
        "node_environment 'prod'\nnode_roles %w[web db]\nnode_tags ['rack-1']\n\
         whitelist({ 'x' => { command_line: 'y', env: { 'TOKEN' => 'hunter2' } } })",
    )
    .expect("a document");
    assert_eq!(told.environment.as_deref(), Some("prod"));
    assert_eq!((told.roles, told.tags), (vec!["web".into(), "db".into()], vec!["rack-1".into()]));
    assert_eq!(told.whitelist["x"]["command_line"], "y");
    assert_eq!(told.whitelist["x"]["env"]["TOKEN"], "***");
    assert!(told.fqdn.is_some());
    let told = document("environment 'dev'").expect("a document");
    assert_eq!(
        (told.environment.as_deref(), &told.whitelist["chef-client"]),
        (Some("dev"), &"chef-client".into())
    );
    assert_eq!(document("publish_node false"), None);
}

#[test]
fn further_settings() {
    let config = Bench::new()
        .load(
            "client_name 'agent-1'\nstate_dir '/state'\nkill_grace 0.5\nlockfile '/run/chef.lock'\n\
             allowed_overwritable_env_vars %w(PATH LANG)\nenvironment_passthrough ['JAVA_HOME']\n\
             ssl_verify_mode :verify_none\nauthentication_protocol_version '1.3'\nlog_format 'json'\n\
             whitelist_match :anywhere\nwhitelist({ /^echo/ => 'printf' })\nallow_unencrypted true\nunknown_key 5",
            &[],
        )
        .expect("read");
    assert_eq!(config.client_name, "agent-1");
    assert_eq!(config.state_dir, Path::new("/state"));
    assert_eq!(config.policy.file_dir, Path::new("/state/files"));
    assert_eq!(config.policy.grace.as_millis(), 500);
    assert_eq!(config.policy.chef_lock, Path::new("/run/chef.lock"));
    assert_eq!(config.policy.allowed_overwritable_env_vars, Some(vec!["PATH".into(), "LANG".into()]));
    assert_eq!(config.policy.environment_passthrough, ["JAVA_HOME"]);
    assert!(config.tls.no_verify && config.log.json);
    assert_eq!(config.auth_version, pushy_core::auth::Version::V1_3);
    assert!(config.whitelist.look_up("echo me").is_some(), "anywhere");
    assert!(config.notices.iter().any(|notice| notice.contains("allow_unencrypted")), "{:?}", config.notices);
    let forced = Bench::new().load("ssl_verify_mode :verify_none\nverify_api_cert true", &[]).expect("read");
    assert!(!forced.tls.no_verify);
}

#[test]
fn the_same_keys_in_toml() {
    let bench = Bench::new();
    let key = bench.path("client.pem").display().to_string();
    let text = format!(
        "chef_server_url = 'https://chef/organizations/acme'\nnode_name = 'web1'\nclient_key = '{key}'\n\
         kill_grace = 2\n[whitelist]\nuptime = 'uptime'\n"
    );
    let config = bench.load_file("agent.toml", &text, &[]).expect("read");
    assert_eq!(config.policy.grace.as_secs(), 2);
    assert!(config.whitelist.look_up("uptime").is_some());
    let error = bench.load_file("agent.toml", "a = 1\nb = = 2\n", &[]).map(|_| ()).expect_err("refused");
    assert!(error.contains("agent.toml:2: "), "{error}");
}

/// Acceptance 8: each error names the file and the setting; none shows a key or a value of `env`.
#[test]
fn errors_name_the_file_and_the_setting() {
    let check = |more: &str, arguments: &[&str], parts: &[&str]| {
        let bench = Bench::new();
        std::fs::write(bench.path("broken.pem"), "-----BEGIN RSA PRIVATE KEY-----\nsecret\n")
            .expect("written");
        let error = bench.load(more, arguments).map(|_| ()).expect_err(more);
        for part in parts {
            assert!(error.contains(part), "{more}: {error} lacks {part}");
        }
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
    };
    let file = "push-jobs-client.rb";
    check("node_name ''", &[], &[file, "node_name"]);
    check("node_name 5", &[], &[file, "node_name", "must be a text, not a number"]);
    check(
        "chef_server_url 'https://chef'",
        &[],
        &[file, "chef_server_url", "must end in /organizations/ORG_NAME"],
    );
    check("client_key '/no/such.pem'", &[], &[file, "client_key", "/no/such.pem"]);
    check("client_key File.join(__dir__, 'broken.pem')", &[], &["client_key", "broken.pem"]);
    check("max_body_size 10", &[], &[file, "max_body_size", "from 1024"]);
    check("", &["-M", "10"], &["--max-body-size"]);
    check("log_level :loud", &[], &[file, "log_level"]);
    check("log_format 'xml'", &[], &[file, "log_format"]);
    check("kill_grace -1", &[], &[file, "kill_grace"]);
    check("environment_passthrough 'x'", &[], &[file, "environment_passthrough", "a list of texts"]);
    check("ssl_verify_mode 1", &[], &[file, "ssl_verify_mode"]);
    check("authentication_protocol_version '2'", &[], &[file, "authentication_protocol_version"]);
    check("whitelist_match :some", &[], &[file, "whitelist_match"]);
    check("whitelist 'chef-client'", &[], &[file, "whitelist"]);
    check("node_environment 'prod.eu'", &[], &[file, "node_environment", "letters, digits"]);
    check("node_roles 'web'", &[], &[file, "node_roles", "a list of texts"]);
    check("node_tags ['a b']", &[], &[file, "node_tags"]);
    check("whitelist({ 'a' => { :lock => true } })", &[], &[file, "entry \"a\""]);
    check("if true\n  node_name 'x'\nend", &[], &[file, ":4:1:"]);
    check("node_name 'x", &[], &[file, ":4:"]);
    let error = Config::load(Args { config: Some("/no/such/file.rb".into()), ..Args::default() });
    assert!(error.map(|_| ()).expect_err("refused").message().contains("cannot read /no/such/file.rb"));
}

/// Files of the drop-in directory come after the configuration file, in the order of their names.
#[test]
fn drop_in_files_add_to_the_whitelist() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new();
    let folder = bench.path("push-jobs-client.d");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
    let entries = |config: &Config, command: &str| {
        config.whitelist.look_up(command).map(|allowed| match allowed.command {
            pushy_core::whitelist::CommandLine::Shell(line) => line,
            pushy_core::whitelist::CommandLine::Args(args) => args.join("|"),
        })
    };
    let own = "whitelist({ 'a' => 'main', 'b' => 'main' })";
    assert_eq!(entries(&bench.load(own, &[]).expect("read"), "a").as_deref(), Some("main"));
    std::fs::create_dir(&folder).expect("made");
    write("20-late.rb", "whitelist({ 'b' => 'late', 'c' => 'late' })");
    write("10-early.rb", "whitelist({\n  'b' => 'early', 'd' => 'early' })");
    write("30.toml", "[whitelist]\ne = 'toml'\n");
    write(".hidden.rb", "nonsense!(");
    write("40.rb~", "nonsense!(");
    let config = bench.load(own, &[]).expect("read");
    for (command, expected) in [
        ("a", Some("main")),
        ("b", Some("late")),
        ("c", Some("late")),
        ("d", Some("early")),
        ("e", Some("toml")),
    ] {
        assert_eq!(entries(&config, command).as_deref(), expected, "{command}");
    }
    let shown = |name: &str| folder.join(name).display().to_string();
    let main = bench.path("push-jobs-client.rb").display().to_string();
    assert_eq!(
        config.notices,
        [
            format!(
                "whitelist entry \"b\": the one of {}:2 counts, not the one of {main}:4",
                shown("10-early.rb")
            ),
            format!(
                "whitelist entry \"b\": the one of {}:1 counts, not the one of {}:2",
                shown("20-late.rb"),
                shown("10-early.rb")
            ),
        ]
    );
    let document = config.document.expect("published");
    assert_eq!(document.whitelist.get("b").and_then(|line| line.as_str()), Some("late"));

    // Without one in the main file they add to the original's default.
    let config = bench.load("", &[]).expect("read");
    assert_eq!(entries(&config, "chef-client").as_deref(), Some("chef-client"));
    assert_eq!(entries(&config, "c").as_deref(), Some("late"));
    // Switched off, elsewhere, and elsewhere but not there.
    assert_eq!(entries(&bench.load("whitelist_dir false", &[]).expect("read"), "c"), None);
    std::fs::create_dir(bench.path("other")).expect("made");
    std::fs::write(bench.path("other/x.rb"), "whitelist 'f' => 'other'").expect("written");
    let config = bench.load("whitelist_dir 'other'", &[]).expect("read");
    assert_eq!(entries(&config, "f").as_deref(), Some("other"));
    let config = bench.load("whitelist_dir 'missing'", &[]).expect("read");
    assert!(
        config.notices.iter().any(|notice| notice.contains("missing is not there")),
        "{:?}",
        config.notices
    );

    let check = |text: &str, expected: &str| {
        write("50-bad.rb", text);
        let error = bench.load(own, &[]).map(|_| ()).expect_err(expected);
        assert!(error.contains(&shown("50-bad.rb")) && error.contains(expected), "{error}");
    };
    check("whitelist({\n  'x' => 1,\n})", ":2: whitelist entry \"x\": the value is a number");
    check("whitelist({\n'x' => }", "50-bad.rb:2:");
    check("node_name 'x'", "node_name has no meaning in a file of the whitelist's directory");
    check("whitelist 7", "whitelist is a number");
    write("50-bad.rb", "whitelist 'x' => 'y'");
    for (path, mode) in [(folder.join("50-bad.rb"), 0o646), (folder.clone(), 0o777)] {
        let before = std::fs::metadata(&path).expect("there").permissions();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("changed");
        let error = bench.load(own, &[]).map(|_| ()).expect_err("open to others");
        assert!(error.contains(&path.display().to_string()) && error.contains("chmod o-w"), "{error}");
        std::fs::set_permissions(&path, before).expect("changed");
    }
    bench.load(own, &[]).expect("closed again");
}
