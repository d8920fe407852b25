//! Ruby configuration files: the ones found in the wild are read, everything else is refused where it stands.
#![cfg(feature = "ruby-config")]

use proptest::prelude::*;
use pushy_core::ErrorCode;
use pushy_core::ruby_config::{self, Settings};
use pushy_core::value::{Regexp, Value};
use pushy_core::whitelist::{CommandLine, Lock, Matching, Whitelist};

fn environment(name: &str) -> Option<String> {
    match name {
        "HOME" => Some("/home/admin".into()),
        "PWD" => Some("/srv".into()),
        "NODE_NAME" => Some("from-environment".into()),
        _ => None,
    }
}

fn read(source: impl AsRef<[u8]>) -> pushy_core::Result<Settings> {
    ruby_config::read("/etc/chef/f.rb", source.as_ref(), &environment)
}

fn value(source: &str) -> Value {
    let settings = read(format!("x {source}")).unwrap_or_else(|e| panic!("{source}: {e}"));
    settings.get("x").expect("it is set").clone()
}

fn texts(list: &[&str]) -> Value {
    Value::Array(list.iter().map(|t| Value::from(*t)).collect())
}

#[test]
fn values() {
    let symbol = |text: &str| Value::Symbol(text.into());
    for (source, expected) in [
        ("'a'", Value::from("a")),
        ("('a')", Value::from("a")),
        (r#""a\tb\u00e9""#, Value::from("a\tbé")),
        ("'a' 'b'", Value::from("ab")),
        ("'a' + \"b\" + 'c'", Value::from("abc")),
        ("\"#{1}-#{:s}-#{nil}-#{true}-#{'t'}\"", Value::from("1-s--true-t")),
        ("<<EOS\nline\nEOS\n", Value::from("line\n")),
        ("<<~EOS\n  a\n    b\nEOS\n", Value::from("a\n  b\n")),
        (":info", symbol("info")),
        (":\"a b\"", symbol("a b")),
        ("nil", Value::Nil),
        ("true", Value::Bool(true)),
        ("-1", Value::Integer(-1)),
        ("1_000", Value::Integer(1000)),
        ("0x7fff_ffff_ffff", Value::Integer(0x7fff_ffff_ffff)),
        ("-9223372036854775807", Value::Integer(-i64::MAX)),
        ("1.5", Value::Float(1.5)),
        ("%w(a b)", texts(&["a", "b"])),
        ("%i(a)", Value::Array(vec![symbol("a")])),
        ("'a', 'b'", texts(&["a", "b"])),
        ("[]", Value::Array(vec![])),
        ("STDOUT", Value::Stdout),
        ("$stderr", Value::Stderr),
        ("__FILE__", Value::from("/etc/chef/f.rb")),
        ("__dir__", Value::from("/etc/chef")),
        ("File.dirname(__FILE__)", Value::from("/etc/chef")),
        ("::File.join(File.dirname(__FILE__), '/a', 'b')", Value::from("/etc/chef/a/b")),
        ("File.expand_path('../a', __FILE__)", Value::from("/etc/chef/a")),
        ("File.expand_path('~/a')", Value::from("/home/admin/a")),
        ("ENV['NODE_NAME']", Value::from("from-environment")),
        ("ENV['NONE']", Value::Nil),
        ("ENV.fetch('NONE', 'd')", Value::from("d")),
        (r"/a\.b/mi", Value::Regexp(Regexp::new(r"a\.b", "mi").expect("options"))),
        (r"%r{/usr/(.+)}x", Value::Regexp(Regexp::new(r"/usr/(.+)", "x").expect("options"))),
        ("'a' => 1, :b => 2, c: 3", {
            let pairs = vec![(Value::from("a"), 1), (symbol("b"), 2), (symbol("c"), 3)];
            Value::Hash(pairs.into_iter().map(|(k, v)| (k, Value::Integer(v))).collect())
        }),
        ("({'a' => 1, 'b' => 2, 'a' => 3})", {
            Value::Hash(vec![(Value::from("a"), Value::Integer(3)), (Value::from("b"), Value::Integer(2))])
        }),
    ] {
        assert_eq!(value(source), expected, "{source}");
    }
}

#[test]
fn statements() {
    let settings = read(
        "# comment\n\u{feff}a = 'x'\nLD = \"#{a}y\"\nfirst LD\nsecond(a)\nknife[:z] = 1\nknife['y'] = LD\nknife[:z] = 2\n\
         Chef::Config[:third] = a\nfourth \"#{first}!\"\nfirst 'again'\n__END__\nnot ruby (",
    );
    // A mark in the middle of a file is no mark.
    assert!(settings.is_err());
    let settings = read(
        "\u{feff}a = 'x'\nLD = \"#{a}y\"\nfirst LD\nsecond(a)\nknife[:z] = 1\nknife['y'] = LD\nknife[:z] = 2\n\
         Chef::Config[:third] = a\nfourth \"#{first}!\"\nfirst 'again'\n__END__\nnot ruby (",
    )
    .expect("it is read");
    let expected = [
        ("first", Value::from("again")),
        ("second", Value::from("x")),
        (
            "knife",
            Value::Hash(vec![
                (Value::Symbol("z".into()), Value::Integer(2)),
                (Value::Symbol("y".into()), Value::from("xy")),
            ]),
        ),
        ("third", Value::from("x")),
        ("fourth", Value::from("xy!")),
    ];
    assert_eq!(settings.iter().map(|(k, v)| (k, v.clone())).collect::<Vec<_>>(), expected);
    assert_eq!(read("").expect("an empty file is one"), Settings::default());
}

#[test]
fn refusals_name_the_place_and_the_way_out() {
    for (source, place, said) in [
        ("\n  if true\n node_name 'x'\nend", "2:3", "a condition is not supported"),
        ("node_name 'x' if true", "1:1", "a condition"),
        ("a 'ä', foo(1)", "1:8", "the method foo is not run here: write its result"),
        ("node_name `hostname`", "1:11", "commands are not run here"),
        ("node_name = 'x'", "1:1", "write node_name(…) without the ="),
        ("whitelist = {}", "1:1", "sets nothing: write whitelist(…)"),
        ("require 'socket'", "1:1", "require is code"),
        ("node_name", "1:1", "node_name alone sets nothing"),
        ("x Socket.gethostname", "1:3", "the method gethostname is not run here"),
        ("x ENV['A'] || 'b'", "1:3", "write ENV.fetch('NAME', 'default')"),
        ("x ENV.fetch('NONE')", "1:3", "the environment variable NONE is not set"),
        ("x File.read('/a')", "1:3", "asks the file system"),
        ("x Regexp.new('a')", "1:3", "a pattern as /…/"),
        ("x /a#{1}/", "1:3", "write the pattern out"),
        ("x y", "1:3", "y has no value here: quote it if it is text"),
        ("x Y", "1:3", "Y has no value here"),
        ("x a: 1, **y", "1:9", "** in a hash"),
        ("x *y", "1:3", "* is not supported here: write the elements"),
        ("x 1..2", "1:3", "a range"),
        ("x 99999999999999999999", "1:3", "too large"),
        ("x 'a' + 1", "1:3", "between strings only"),
        ("x \"#{[1]}\"", "1:4", "an array cannot stand in"),
        ("x do\nend", "1:1", "x with a block is code"),
        ("x.y = 1", "1:1", "SETTING[:name] = VALUE"),
        ("x \"\\xff\"", "1:3", "not UTF-8"),
        ("a = \"#{a}\"", "1:8", "a has no value here"),
        ("a, b = 1, 2", "1:1", "one a line"),
        ("@a = 1", "1:1", "leave out the @ or $"),
        ("'a'", "1:1", "a value alone sets nothing"),
        ("def x\nend", "1:1", "a method definition"),
        ("x File.expand_path('~bob/a')", "1:3", "write an absolute path"),
        ("Mixlib::Log::Formatter.show_time = 'x'", "1:1", "must be true or false"),
        ("begin\nx 1\nrescue\nend", "1:1", "begin or rescue"),
        ("x 'a\n", "1:3", "syntax error"),
        ("x(\n1,\n2", "3:2", "syntax error"),
        ("x \u{1}", "1:3", "syntax error"),
    ] {
        let error = read(source).expect_err(source);
        assert_eq!(error.code(), ErrorCode::InvalidConfig);
        let expected = format!("/etc/chef/f.rb:{place}: ");
        assert!(error.message().starts_with(&expected), "{source}: {error}");
        assert!(error.message().contains(said), "{source}: {error}");
        assert!(!error.message().contains('\n'), "{source}: {error}");
    }
    let error = read(b"a 'b'\nx '\xc3\xa9\xff'").expect_err("not UTF-8");
    assert!(error.message().starts_with("/etc/chef/f.rb:2:5: the file is not UTF-8"), "{error}");
    let error = read("# encoding: iso-8859-1\nx 'é'").expect_err("another encoding");
    assert!(error.message().contains("the encoding iso-8859-1 is not supported"), "{error}");
}

#[test]
fn files_that_would_exhaust_the_machine_are_refused() {
    let check = |name: &str, source: String| {
        let error = read(&source).expect_err(name);
        assert!(error.message().len() < 400, "{name}: {error}");
    };
    check("large", "#".repeat(ruby_config::MAX_FILE + 1));
    let deep = 60_000;
    for (name, opening, closing) in [
        ("arrays", "[", "]"),
        ("hashes", "{1=>", "}"),
        ("parentheses", "(", ")"),
        ("interpolation", "\"#{", "}\""),
        ("calls", "a(", ")"),
        ("negations", "!", ""),
        ("words of negation", "not ", ""),
        ("signs", "- ", ""),
        ("conditions", "if a\n", "\nend"),
        ("assignments", "a=", ""),
        ("words", "a ", ""),
        ("brackets", "a[", "]"),
    ] {
        check(name, format!("x {}1{}", opening.repeat(deep), closing.repeat(deep)));
        check(name, format!("x {}", opening.repeat(deep)));
        check(name, format!("x {}1{}", opening.repeat(150), closing.repeat(150)));
    }
    check("sums", format!("x 'a'{}", " + 'a'".repeat(deep)));
    check("chains", format!("x a{}", ".a".repeat(deep)));
    check("settings", (0..40_000).map(|n| format!("x{n} 1\n")).collect());
    check("pairs", format!("x({{{}}})", (0..40_000).map(|n| format!("{n}=>1,")).collect::<String>()));
    let mut doubling = String::from("a0 = 'aaaaaaaaaaaaaaaa'\n");
    let mut copies = String::from("a0 = ['a']\n");
    for n in 1..64 {
        doubling.push_str(&format!("a{n} = \"#{{a{0}}}#{{a{0}}}\"\n", n - 1));
        copies.push_str(&format!("a{n} = [a{0}, a{0}]\n", n - 1));
    }
    check("doubling", doubling);
    check("copies", copies);
}

fn config(name: &str) -> Settings {
    let path = format!("{}/../tests/configs/{name}", env!("CARGO_MANIFEST_DIR"));
    #[allow(clippy::disallowed_methods)] // Tests read their data.
    let source = std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    ruby_config::read(&format!("/home/admin/.chef/{name}"), &source, &environment).expect("it is read")
}

fn check_settings(name: &str, expected: &[(&str, Value)]) -> Settings {
    let settings = config(name);
    for (key, value) in expected {
        assert_eq!(settings.get(key), Some(value), "{name}: {key}");
    }
    settings
}

#[test]
fn the_cookbooks_files_are_read() {
    let settings = check_settings(
        "push-jobs-client.default.rb",
        &[
            ("chef_server_url", Value::from("https://chef.example.com/organizations/acme")),
            ("node_name", Value::from("web-1.example.com")),
            ("client_key", Value::from("/etc/chef/client.pem")),
            ("verify_api_cert", Value::Bool(true)),
            ("ssl_verify_mode", Value::Symbol("verify_peer".into())),
            ("allow_unencrypted", Value::Bool(false)),
            ("Mixlib::Log::Formatter.show_time", Value::Bool(false)),
        ],
    );
    let whitelist =
        Whitelist::from_value(settings.get("whitelist").expect("set"), Matching::Whole).expect("usable");
    assert!(whitelist.look_up("chef-client").is_some() && whitelist.len() == 1);

    let settings = check_settings(
        "push-jobs-client.all.rb",
        &[
            ("node_name", Value::from("db 01.example.com")),
            ("http_proxy_pass", Value::from("p#ss 'word'")),
            ("no_proxy", Value::from("localhost,10.*,*.example.com")),
            ("Mixlib::Log::Formatter.show_time", Value::Bool(true)),
        ],
    );
    let whitelist =
        Whitelist::from_value(settings.get("whitelist").expect("set"), Matching::Whole).expect("usable");
    for (command, line, lock) in [
        ("tomcat6_restart", "service tomcat6 restart", None),
        ("say \"hi\"", "echo 'hi' #{1}", None),
        ("deliver x", "deliver x", None),
        ("CHEF-CLIENT -o a", "chef-client -o a", Some(Lock::ChefClient)),
        ("hard", "sleep 10", Some(Lock::Path("/run/hard.lock".into()))),
    ] {
        let allowed = whitelist.look_up(command).unwrap_or_else(|| panic!("{command} is listed"));
        assert_eq!((allowed.command, allowed.lock), (CommandLine::Shell(line.into()), lock), "{command}");
    }
}

#[test]
fn pushys_own_settings_are_read() {
    let settings = check_settings(
        "push-jobs-client.pushy.rb",
        &[
            ("node_name", Value::from("from-environment")),
            ("client_key", Value::from("/home/admin/.chef/client.pem")),
            ("max_body_size", Value::Integer(1_000_000)),
            ("file_dir", Value::from("/var/lib/pushy/files")),
            ("allowed_overwritable_env_vars", texts(&["PATH", "LANG"])),
            ("log_location", Value::Stdout),
        ],
    );
    let matching = Matching::from_value(settings.get("whitelist_match").expect("set")).expect("known");
    let whitelist = Whitelist::from_value(settings.get("whitelist").expect("set"), matching).expect("usable");
    let allowed = whitelist.look_up("/opt/bin/tool").expect("listed");
    assert_eq!(allowed.command, CommandLine::Args(vec!["/opt/bin/tool".into(), "--once".into()]));
    assert_eq!((allowed.user.as_deref(), allowed.env), (Some("deploy"), vec![("LANG".into(), "C".into())]));
    let allowed = whitelist.look_up("run a;'b'").expect("listed");
    assert_eq!(allowed.command, CommandLine::Shell(r"run 'a;'\''b'\'''".into()));
    assert_eq!(whitelist.look_up("reboot"), None);
}

#[test]
fn workstation_files_are_read() {
    check_settings(
        "knife.starter-kit.rb",
        &[
            ("log_location", Value::Stdout),
            ("client_key", Value::from("/home/admin/.chef/admin.pem")),
            ("cookbook_path", texts(&["/home/admin/.chef/../cookbooks"])),
        ],
    );
    let settings = check_settings(
        "config.knife-configure.rb",
        &[
            ("node_name", Value::from("admin")),
            ("cookbook_path", texts(&["/home/admin/chef-repo/cookbooks", "/home/admin/more"])),
        ],
    );
    assert_eq!(settings.get("knife").and_then(|k| k.member("ssh_user")), Some(&Value::from("root")));
    check_settings("client.rb", &[("log_location", Value::Stderr), ("node_name", Value::from("web-1"))]);
}

#[test]
fn a_file_with_if_is_refused_where_it_stands() {
    let source = include_bytes!("../../tests/configs/refused.if.rb");
    let error =
        ruby_config::read("/etc/chef/push-jobs-client.rb", source, &environment).expect_err("refused");
    assert_eq!(
        error.message(),
        "/etc/chef/push-jobs-client.rb:3:3: a condition is not supported, as the file is read and not run: write \
         the values for this machine"
    );
}

/// Pieces that make likely Ruby, in any order.
fn ruby() -> impl Strategy<Value = String> {
    let pieces = [
        "x ",
        "'a'",
        "\"#{",
        "}\"",
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ",",
        "=>",
        "=",
        " + ",
        "a",
        "A",
        ":b",
        "/x/",
        "%w(",
        "\n",
        "File",
        ".",
        "join",
        "ENV",
        "knife[:a]",
        "<<~E\n",
        "E\n",
        "nil",
        "if ",
        " end",
        "do ",
        "*",
        "&",
        "1",
        "-",
        "\\",
        "'",
        "\"",
        "#",
        "é",
        "\0",
        "__FILE__",
        "::",
        "?",
        ";",
        "|",
        "!",
        "def ",
        "->",
        "@",
        "$",
        "`",
        "%r{",
        "%",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_makes_it_panic(source in ruby()) {
        let _ = read(source);
    }

    #[test]
    fn no_bytes_make_it_panic(source in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(source);
    }
}
