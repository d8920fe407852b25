//! Where a workstation's settings come from, on a machine made of a map.
#![cfg(feature = "ruby-config")]

use std::collections::BTreeMap;

use pushy_core::chef_config::{ClientSettings, Key, Options, Surroundings, network, parse_toml, resolve};
use pushy_core::value::Value;
use pushy_core::{ErrorCode, Result};

/// Files by path; a path that ends in a slash is an empty directory.
#[derive(Default)]
struct Machine {
    files: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
}

impl Machine {
    fn new(files: &[(&str, &str)], env: &[(&str, &str)]) -> Machine {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let mut machine = Machine { files: owned(files), env: owned(env) };
        for (name, value) in [("HOME", "/home/u"), ("PWD", "/home/u/repo/sub")] {
            machine.env.entry(name.into()).or_insert_with(|| value.into());
        }
        machine.files.insert("/home/u/".into(), String::new());
        machine.files.insert("/home/u/repo/sub/".into(), String::new());
        machine
    }
}

impl Surroundings for Machine {
    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.files.get(path).map(|text| text.clone().into_bytes()))
    }
    fn is_dir(&self, path: &str) -> bool {
        let prefix = format!("{path}/");
        self.files.keys().any(|file| file.starts_with(&prefix))
    }
    fn files(&self, dir: &str) -> Vec<String> {
        let prefix = format!("{dir}/");
        let names = self.files.keys().filter_map(|file| file.strip_prefix(&prefix));
        names.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
    }
    fn current_dir(&self) -> String {
        "/home/u/repo/sub".into()
    }
    fn login(&self) -> Option<String> {
        Some("login".into())
    }
}

const URL: &str = "chef_server_url 'https://c/organizations/o'\n";

fn settings(files: &[(&str, &str)], env: &[(&str, &str)], options: &Options) -> ClientSettings {
    resolve(&Machine::new(files, env), options).unwrap_or_else(|e| panic!("{files:?}: {e}"))
}

fn refused(files: &[(&str, &str)], env: &[(&str, &str)], options: &Options) -> String {
    let error = resolve(&Machine::new(files, env), options).expect_err("refused");
    assert_eq!(error.code(), ErrorCode::InvalidConfig);
    error.message().to_owned()
}

#[test]
fn one_file_is_chosen() {
    let named = |name: &str| format!("{URL}node_name '{name}'");
    for (paths, env, chosen) in [
        (vec!["/home/u/.chef/knife.rb"], vec![], 0),
        (vec!["/home/u/.chef/knife.rb", "/home/u/.chef/config.rb"], vec![], 1),
        (vec!["/home/u/.chef/config.rb", "/home/u/repo/.chef/knife.rb"], vec![], 1),
        // The nearest .chef counts by its existence; past it comes the home.
        (
            vec!["/home/u/repo/sub/.chef/", "/home/u/repo/.chef/config.rb", "/home/u/.chef/config.rb"],
            vec![],
            2,
        ),
        (vec!["/home/u/repo/.chef/config.rb", "/home/u/repo/sub/knife.rb"], vec![], 1),
        (vec!["/home/u/repo/sub/config.rb", "/k/knife.rb"], vec![("KNIFE_HOME", "/k")], 1),
        (vec!["/h/.chef/config.rb", "/home/u/x"], vec![("CHEF_HOME", "/h")], 0),
    ] {
        let texts: Vec<String> = paths.iter().map(|path| named(path)).collect();
        let files: Vec<(&str, &str)> = paths.iter().zip(&texts).map(|(p, t)| (*p, t.as_str())).collect();
        let settings = settings(&files, &env, &Options::default());
        assert_eq!(settings.client_name, paths[chosen], "{paths:?}");
        assert_eq!(settings.sources, [paths[chosen]]);
    }
    let options = Options { config_file: Some("x.rb".into()), ..Options::default() };
    assert_eq!(settings(&[("/home/u/repo/sub/x.rb", &named("x"))], &[], &options).client_name, "x");
    assert_eq!(refused(&[], &[], &options), "/home/u/repo/sub/x.rb: the configuration file does not exist");
}

#[test]
fn later_sources_win_key_by_key() {
    let files = [
        (
            "/home/u/.chef/credentials",
            "[default]\nclient_name='c'\nclient_key='c.pem'\nchef_server_url='https://cred'\nrest_timeout=7\n[default.knife]\na=1\nb=1\n",
        ),
        ("/home/u/.chef/config.rb", "node_name 'f'\nchef_server_url 'https://file'\nknife[:b] = 2\n"),
        ("/home/u/.chef/config.d/b.rb", "node_name 'd'\n"),
        ("/home/u/.chef/config.d/a.rb", "node_name 'a'\nknife[:c] = 3\n"),
        ("/home/u/.chef/config.d/c.txt", "not ruby ("),
    ];
    let found = settings(&files, &[], &Options::default());
    assert_eq!(
        (found.client_name.as_str(), found.chef_server_url.as_str(), found.rest_timeout),
        ("d", "https://file", 7)
    );
    assert_eq!(
        ["a", "b", "c"].map(|k| found.knife(k).and_then(Value::as_integer)),
        [Some(1), Some(2), Some(3)]
    );
    assert!(matches!(&found.key, Key::Path { path, .. } if path == "/home/u/.chef/c.pem"), "{:?}", found.key);
    assert_eq!(found.sources.len(), 4);

    let env = [
        ("PUSHY_SERVER_URL", " https://env "),
        ("PUSHY_USER", "e"),
        ("PUSHY_KEY", "e.pem"),
        ("CHEF_SERVER_URL", "no"),
    ];
    let found = settings(&files, &env, &Options::default());
    assert_eq!((found.client_name.as_str(), found.chef_server_url.as_str()), ("e", "https://env"));
    assert!(
        matches!(&found.key, Key::Path { path, source } if path == "/home/u/repo/sub/e.pem" && source == "PUSHY_KEY")
    );

    let options = Options {
        server_url: Some("http://o".into()),
        user: Some("o".into()),
        key: Some("/o.pem".into()),
        ..Options::default()
    };
    let found = settings(&files, &env, &options);
    assert_eq!((found.client_name.as_str(), found.chef_server_url.as_str()), ("o", "http://o"));
    assert!(matches!(&found.key, Key::Path { path, .. } if path == "/o.pem"));
}

#[test]
fn profiles() {
    let file = "[default]\nnode_name='d'\nchef_server_url='https://d'\n[dev]\nclient_name='v'\nssl_verify_mode=':verify_none'\n\
                client_key=\"\"\"\n-----BEGIN RSA PRIVATE KEY-----\nx\n\"\"\"\nchef_server_url='https://v'\n['a.b']\nclient_name='ab'\nchef_server_url='https://ab'\n";
    let credentials = ("/home/u/.chef/credentials", file);
    let none = Options::default();
    let asked = |name: &str| Options { profile: Some(name.into()), ..Options::default() };
    for (files, env, options, name) in [
        (vec![credentials], vec![], none.clone(), "d"),
        (vec![credentials], vec![("CHEF_PROFILE", "dev")], none.clone(), "v"),
        (vec![credentials, ("/home/u/.chef/context", " a.b\n")], vec![], none.clone(), "ab"),
        (
            vec![credentials, ("/home/u/.chef/context", "dev")],
            vec![("CHEF_PROFILE", "a.b")],
            asked("default"),
            "d",
        ),
        (vec![("/c", file)], vec![("CHEF_CREDENTIALS_FILE", "/c")], none.clone(), "d"),
        (vec![credentials], vec![("CHEF_CREDENTIALS_FILE", "/nowhere")], none.clone(), "d"),
    ] {
        assert_eq!(settings(&files, &env, &options).client_name, name, "{files:?} {env:?}");
    }
    let dev = settings(&[credentials], &[], &asked("dev"));
    assert!(dev.tls.no_verify && matches!(&dev.key, Key::Pem { .. }));
    assert!(!format!("{dev:?}").contains("BEGIN"), "a key is never shown");
    for (files, env, options, said) in [
        (
            vec![credentials],
            vec![("CHEF_PROFILE", "")],
            none.clone(),
            "there is no profile \"\"; there are: ",
        ),
        (vec![credentials], vec![], asked("x"), "there is no profile \"x\""),
        (vec![], vec![], asked("x"), "profile \"x\": there is no credentials file /home/u/.chef/credentials"),
        (
            vec![("/home/u/.chef/credentials", "[default]\nx = \n")],
            vec![],
            none.clone(),
            "/home/u/.chef/credentials:2:",
        ),
        (
            vec![("/home/u/.chef/credentials", "[default]\nclient_name='a'\nnode_name='b'\n")],
            vec![],
            none.clone(),
            "both set",
        ),
        (
            vec![("/home/u/.chef/credentials", "[default]\nclient_key={secret='a'}\n")],
            vec![],
            none.clone(),
            "secrets store",
        ),
    ] {
        let message = refused(&files, &env, &options);
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn defaults_and_refusals() {
    let file = |text: &str| format!("{URL}{text}");
    let with = |text: &str| {
        let text = file(text);
        settings(
            &[
                ("/home/u/.chef/config.rb", &text),
                ("/home/u/.chef/login.pem", "k"),
                ("/home/u/.chef/trusted_certs/a.crt", "c"),
            ],
            &[],
            &Options::default(),
        )
    };
    let found = with("");
    assert_eq!(
        (found.client_name.as_str(), found.auth_version.as_str(), found.rest_timeout),
        ("login", "1.1", 300)
    );
    assert_eq!(found.tls.trusted_certs_dir.as_deref(), Some("/home/u/.chef/trusted_certs"));
    assert!(
        matches!(&found.key, Key::Path { path, .. } if path == "/home/u/.chef/login.pem"),
        "{:?}",
        found.key
    );
    assert!(matches!(&with("node_name 'n'").key, Key::Path { path, .. } if path == "/etc/chef/client.pem"));
    assert!(!with("ssl_verify_mode :verify_none\nverify_api_cert true").tls.no_verify);
    assert_eq!(with("authentication_protocol_version 1.3").auth_version, "1.3");
    let proxies =
        with("https_proxy 'p:3128'\nhttps_proxy_user 'a@b'\nhttps_proxy_pass 'c:d'\nno_proxy 'x'").proxies;
    assert_eq!(proxies.https.as_deref(), Some("http://a%40b:c%3Ad@p:3128"));
    assert!(!format!("{proxies:?}").contains("3Ad"), "a password is never shown");

    for (text, said) in [
        ("ssl_verify_mode :sometimes", "ssl_verify_mode must be"),
        ("ssl_client_cert '/a'", "belong together"),
        ("rest_timeout 'x'", "rest_timeout is a string"),
        ("chef_server_url 'ftp://x'", "must start with http:// or https://"),
        ("chef_server_url ''", "no chef_server_url: set it in /home/u/.chef/credentials"),
        ("if true\nend", "/home/u/.chef/config.rb:2:1: a condition"),
        ("knife 1", "knife is a number; it must be a hash"),
    ] {
        let text = file(text);
        let message = refused(&[("/home/u/.chef/config.rb", &text)], &[], &Options::default());
        assert!(message.contains(said), "{message}");
    }
    assert!(refused(&[], &[], &Options::default()).starts_with("no chef_server_url"));
}

#[test]
fn the_agent_shares_tls_and_proxy_rules() {
    let settings = parse_toml("f.toml", b"ssl_ca_file = 'ca.pem'\nhttp_proxy = 'http://p'\n").expect("TOML");
    let (tls, proxies) =
        network(&settings, "/etc/chef", &|name| (name == "SSL_CERT_FILE").then(|| "/b".into()))
            .expect("fine");
    assert_eq!(
        (tls.ca_file.as_deref(), tls.env_cert_file.as_deref()),
        (Some("/etc/chef/ca.pem"), Some("/b"))
    );
    assert_eq!((proxies.http.as_deref(), proxies.https), (Some("http://p"), None));
    let error = parse_toml("f.toml", b"key = 'SECRET\nx").expect_err("not TOML");
    assert!(error.message().starts_with("f.toml:") && !error.message().contains("SECRET"), "{error}");
    let _ = parse_toml("f.toml", format!("a = {}", "[".repeat(100_000)).as_bytes()).expect_err("too deep");
}
