//! The program against a server of the test's own: standard output letter for letter, exit codes, messages (10.2–10.4).

mod jobs;
mod lab;
mod output;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use lab::{Answer, Lab, Ran, Received, ran};

const ID: &str = "6e0b432e369904e76de6e95bac99c9e6";

fn job(status: &str, nodes: &str) -> String {
    format!(
        r#"{{"nodes":{nodes},"id":"{ID}","command":"tomcat6_restart","status":"{status}","run_timeout":3600,
            "created_at":"Fri, 06 Dec 2013 21:05:32 GMT","updated_at":"Fri, 06 Dec 2013 21:05:40 GMT"}}"#
    )
}

/// A server on which a job ends at once with this status and these nodes.
fn ending(status: &'static str, nodes: &'static str) -> Lab {
    Lab::new(move |request| start_or(request, || (200, job(status, nodes))))
}

fn start_or(request: &Received, other: impl FnOnce() -> Answer) -> Answer {
    if request.line.starts_with("POST ") {
        (201, format!(r#"{{"uri":"http://chef/organizations/acme/pushy/jobs/{ID}"}}"#))
    } else {
        other()
    }
}

fn body(lab: &Lab) -> serde_json::Value {
    serde_json::from_str(&lab.received()[0].body).unwrap()
}

/// The scene of the project's front page.
#[test]
fn the_scene() {
    let started = Mutex::new(None);
    let lab = Lab::new(move |request| match request.line.as_str() {
        "GET /organizations/acme/pushy/node_states" => (
            200,
            r#"[{"node_name":"1-tomcat-intro","availability":"available"},
                {"node_name":"1-tomcat2-intro","availability":"available"},
                {"node_name":"1-lb-intro","availability":"available"}]"#
                .to_owned(),
        ),
        "POST /organizations/acme/pushy/jobs" => {
            *started.lock().unwrap() = Some(Instant::now());
            (201, format!(r#"{{"uri":"http://chef/organizations/acme/pushy/jobs/{ID}"}}"#))
        }
        _ => match started.lock().unwrap().unwrap().elapsed().as_millis() {
            0..=20 => (200, job("voting", r#"{"new":["1-tomcat-intro","1-tomcat2-intro"]}"#)),
            21..=1500 => {
                (200, job("running", r#"{"running":["1-tomcat2-intro"],"succeeded":["1-tomcat-intro"]}"#))
            }
            _ => (200, job("complete", r#"{"succeeded":["1-tomcat-intro","1-tomcat2-intro"]}"#)),
        },
    });
    assert_eq!(
        lab.run(&["node", "status"]),
        Ran {
            out: "1-lb-intro\tavailable\n1-tomcat-intro\tavailable\n1-tomcat2-intro\tavailable\n".to_owned(),
            err: String::new(),
            code: Some(0),
        }
    );
    let start =
        ["job", "start", "--poll-interval", "0.3", "tomcat6_restart", "1-tomcat-intro", "1-tomcat2-intro"];
    assert_eq!(
        lab.run(&start),
        Ran {
            out: "\
Started.  Job ID: 6e0b432e369904e76de6e95bac99c9e6
Running (1/2 in progress) ...
Complete.
command:     tomcat6_restart
created_at:  Fri, 06 Dec 2013 21:05:32 GMT
id:          6e0b432e369904e76de6e95bac99c9e6
nodes:
  succeeded:
    1-tomcat-intro
    1-tomcat2-intro
run_timeout: 3600
status:      complete
updated_at:  Fri, 06 Dec 2013 21:05:40 GMT
"
            .to_owned(),
            err: String::new(),
            code: Some(0),
        }
    );
}

#[test]
fn exit_codes_are_those_of_the_table() {
    for (status, nodes, strict, lenient) in [
        ("complete", r#"{"succeeded":["a"]}"#, 0, 0),
        ("complete", r#"{"succeeded":["a"],"nacked":["b"]}"#, 20, 0),
        ("complete", r#"{"failed":["a"]}"#, 20, 1),
        ("quorum_failed", r#"{"nacked":["a"]}"#, 21, 1),
        ("timed_out", r#"{"timed_out":["a"]}"#, 22, 1),
        ("aborted", r#"{"aborted":["a"]}"#, 23, 1),
        ("crashed", r#"{"crashed":["a"]}"#, 24, 1),
    ] {
        let lab = ending(status, nodes);
        assert_eq!(lab.run(&["job", "start", "x", "a", "b"]).code, Some(strict), "{status} {nodes}");
        let run = lab.run(&["job", "start", "--lenient-exit", "x", "a", "b"]);
        assert_eq!(run.code, Some(lenient), "{status} {nodes} lenient");
        lab.write(".chef/config.rb", "knife[:lenient_exit] = true\n");
        assert_eq!(lab.run(&["job", "start", "x", "a", "b"]).code, Some(lenient), "{status} {nodes} knife[]");
    }
}

#[test]
fn documents_stand_alone_on_standard_output() {
    let lab = ending("complete", r#"{"succeeded":["a"]}"#);
    let run = lab.run(&["-F", "json", "job", "start", "x", "a"]);
    let document: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(document["nodes"]["succeeded"][0], "a");
    assert_eq!(run.err, format!("Started.  Job ID: {ID}\nComplete.\n"));

    let run = lab.run(&["job", "start", "x", "a", "-F", "yaml"]);
    assert_eq!(
        run.out,
        format!(
            "---\nnodes:\n  succeeded:\n  - a\nid: {ID}\ncommand: tomcat6_restart\nstatus: complete\nrun_timeout: 3600\n\
             created_at: Fri, 06 Dec 2013 21:05:32 GMT\nupdated_at: Fri, 06 Dec 2013 21:05:40 GMT\n\
             counts:\n  succeeded: 1\n"
        )
    );
    let run = lab.run(&["job", "start", "-b", "x", "a", "-F", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&run.out).unwrap()["id"], ID);
    lab.write(".chef/config.rb", "knife[:format] = 'j'\n");
    assert!(lab.run(&["job", "status", ID]).out.starts_with("{\n  \"nodes\": {"));
    assert!(lab.run(&["job", "status", ID, "-F", "text"]).out.starts_with("command:     tomcat6_restart\n"));
}

#[test]
fn nowait_ends_after_the_id() {
    let lab = ending("complete", "{}");
    for flag in ["-b", "--nowait"] {
        let run = lab.run(&["job", "start", flag, "x", "a"]);
        assert_eq!(run, Ran { out: format!("Started.  Job ID: {ID}\n"), err: String::new(), code: Some(0) });
    }
    assert!(lab.received().iter().all(|r| r.line.starts_with("POST ")));
}

#[test]
fn every_option_reaches_the_server() {
    let lab = ending("complete", "{}");
    lab.write("input.bin", [0xff, 0x00]);
    lab.write("nodes.txt", "# web\nb\n\n  c  \na\n");
    let run = lab.run_with_input(
        &[
            "job",
            "start",
            "-b",
            "-q",
            "50%",
            "--timeout",
            "60",
            "--file",
            "input.bin",
            "--capture",
            "-p",
            "version=1=2",
            "--param",
            "count=",
            "--with-env",
            r#"{"STAGE":"prod","N":1}"#,
            "--as-user",
            "deploy",
            "--in-dir",
            "/srv",
            "restart nginx",
            "a",
            "@nodes.txt",
            "-",
        ],
        "d\ne\n",
    );
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    assert_eq!(
        body(&lab),
        serde_json::json!({
            "command": "restart nginx", "nodes": ["a", "b", "c", "d", "e"], "quorum": 3, "run_timeout": 60,
            "capture_output": true, "env": {"STAGE": "prod", "N": "1"},
            "parameters": {"version": "1=2", "count": ""}, "file": "base64:/wA=", "dir": "/srv",
            "user": "deploy",
        })
    );
}

#[test]
fn plain_jobs_send_no_env_and_options_can_be_preset() {
    let lab = ending("complete", "{}");
    assert_eq!(lab.run(&["job", "start", "-b", "x", "a"]).code, Some(0));
    assert_eq!(
        body(&lab),
        serde_json::json!({"command": "x", "nodes": ["a"], "quorum": 1, "capture_output": false})
    );
    let lab = ending("complete", "{}");
    lab.write(".chef/config.rb", "knife[:quorum] = '34%'\nknife[:timeout] = 5\nknife[:nowait] = true\n");
    assert_eq!(lab.run(&["job", "start", "x", "a", "b", "c"]).code, Some(0));
    assert_eq!((&body(&lab)["quorum"], &body(&lab)["run_timeout"]), (&2.into(), &5.into()));
}

#[test]
fn what_is_wrong_starts_nothing() {
    let lab = ending("complete", "{}");
    lab.write("big", vec![b'x'; 100_001]);
    let check = |args: &[&str], message: &str| {
        let run = lab.run(args);
        assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{args:?} {run:?}");
        assert!(run.err.starts_with(message), "{args:?}: {}", run.err);
    };
    check(&["job", "start"], "ERROR: No job specified.\nUsage: pushy job start");
    check(
        &["job", "start", "x"],
        "ERROR: No nodes to run job on. Specify nodes as arguments or use -s to specify a search query.\n",
    );
    check(&["job", "start", "x", "a", "--file", "absent"], "ERROR: absent not found\n");
    check(
        &["job", "start", "x", "a", "--file", "big"],
        "ERROR: --file big: 100001 bytes; a job can carry at most 100000\n",
    );
    check(
        &["job", "start", "x", "a", "--with-env", "{A: 1}"],
        "ERROR: --with-env: not valid JSON (line 1, column 2)\n",
    );
    check(&["job", "start", "x", "a", "--with-env", "[]"], "ERROR: --with-env: must be a JSON object");
    check(
        &["job", "start", "x", "a", "--with-env", r#"{"A":null}"#],
        "ERROR: --with-env: the value of \"A\"",
    );
    for (given, expected) in [
        (&["-p", "x"][..], "ERROR: --param: a parameter must be NAME=VALUE\n"),
        (&["-p", "a b=1"], "ERROR: --param: \"a b\" is no parameter's name"),
        (&["-p", "a=1", "--param", "a=2"], "ERROR: --param: parameter a is given twice\n"),
    ] {
        check(&[&["job", "start", "x", "a"], given].concat(), expected);
    }
    check(&["job", "start", "x", "a", "-q", "most"], "ERROR: Invalid Format please enter integer or percent");
    check(&["job", "start", "x", "a", "--timeout", "1m"], "ERROR: --timeout \"1m\" is not a whole number");
    check(
        &["job", "start", "x", "a", "--poll-interval", "0"],
        "ERROR: --poll-interval \"0\" is not a number",
    );
    check(&["job", "start", "x", "@absent"], "ERROR: cannot read names from absent: no such file");
    check(&["job", "start", "x", "a\u{7}"], "ERROR: \"a\\u{7}\": invalid node name");
    check(&["job", "status", "xyz"], "ERROR: \"xyz\": invalid job id");
    check(
        &["job", "output", ID, "a", "--channel", "stdin"],
        "ERROR: Invalid Format please enter stdout, stderr or both\n",
    );
    check(&["job", "start", "x", "a", "--no-such"], "error: unexpected argument '--no-such'");
    check(&["-F", "j", "job", "list"], "error: invalid value 'j'");
    check(&["job", "pause", ID], "error: unrecognized subcommand 'pause'");
    check(&["job", "watch", "x"], "ERROR: \"x\": invalid job id");
    check(&["job", "cancel", "x"], "ERROR: \"x\": invalid job id");
    check(&["job", "cancel", ID, "a\u{7}"], "ERROR: \"a\\u{7}\": invalid node name");
    check(&["job", "start", "x", "--from-job", "x"], "ERROR: --from-job: \"x\": invalid job id");
    check(
        &["job", "start", "x", "--from-job", ID, "--where", "lost"],
        "ERROR: --where: \"lost\" is no status of a node; there are new, ready, running, succeeded",
    );
    check(
        &["job", "start", "x", "--from-job", ID, "a"],
        "error: the argument '--from-job <ID>' cannot be used with",
    );
    check(
        &["job", "start", "x", "--from-job", ID, "-s", "a:b"],
        "error: the argument '--from-job <ID>' cannot",
    );
    check(&["job", "start", "x", "a", "--where", "failed"], "ERROR: --where chooses among the nodes");
    assert_eq!(lab.received().len(), 0, "nothing was asked of the server");
}

#[test]
fn configuration_that_is_wrong_is_named() {
    let lab = ending("complete", "{}");
    let check = |args: &[&str], parts: &[&str]| {
        let run = lab.run(args);
        assert_eq!((run.code, run.out.as_str()), (Some(1), ""), "{args:?} {run:?}");
        for part in parts {
            assert!(run.err.contains(part), "{args:?}: {} lacks {part:?}", run.err);
        }
    };
    check(&["job", "list", "--profile", "nobody"], &["ERROR: ", "nobody", ".chef/credentials"]);
    check(&["job", "list", "-c", "absent.rb"], &["absent.rb", "does not exist"]);
    lab.write("bad.rb", "node_name 'x'\nif true\nend\n");
    check(&["job", "list", "-c", "bad.rb"], &["bad.rb:2:1"]);
    check(&["job", "list", "-k", "absent.pem"], &["the key ", "absent.pem does not exist", "-k"]);
    lab.write("not.pem", "hello");
    check(&["job", "list", "-k", "not.pem"], &["not.pem: "]);
    let rsa = openssl::rsa::Rsa::generate(2048).unwrap();
    let locked = rsa.private_key_to_pem_passphrase(openssl::symm::Cipher::aes_128_cbc(), b"secret").unwrap();
    lab.write("locked.pem", locked);
    check(&["job", "list", "-k", "locked.pem"], &["locked.pem: ", "encrypted"]);
    check(&["job", "list", "--server-url", "ftp://x"], &["chef_server_url", "http://"]);
    lab.write(".chef/credentials", "[default\n");
    check(&["job", "list"], &[".chef/credentials"]);
}

#[test]
fn refusals_end_with_100() {
    for (status, body, message) in [
        (
            401,
            r#"{"error":["Invalid signature for user or client 'alice'"]}"#,
            "ERROR: Failed to authenticate to URL as alice with key HOME/.chef/alice.pem: Invalid signature for user or client \
             'alice'\n",
        ),
        (
            403,
            r#"{"error":["no"]}"#,
            "ERROR: You authenticated successfully to URL as alice but you are not authorized for this action: no\n",
        ),
        (404, "", "ERROR: The object you are looking for could not be found (pushy/jobs)\n"),
        (
            400,
            r#"{"error":"invalid command supplied"}"#,
            "ERROR: The data in your request was invalid: invalid command supplied\n",
        ),
        (500, "<html>", "ERROR: internal server error\n"),
        (502, "<html>", "ERROR: bad gateway\n"),
    ] {
        let lab = Lab::new(move |_| (status, body.to_owned()));
        let home = lab.path("").to_string_lossy().trim_end_matches('/').to_owned();
        let want = message.replace("URL", &lab.url()).replace("HOME", &home);
        let run = lab.run(&["job", "start", "x", "a"]);
        assert_eq!(run, Ran { out: String::new(), err: want, code: Some(100) }, "{status}");
    }
    let lab = ending("complete", "{}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run =
        lab.run(&["job", "list", "--server-url", &format!("http://127.0.0.1:{port}/organizations/acme")]);
    assert_eq!(run.code, Some(100));
    assert_eq!(
        run.err,
        format!(
            "ERROR: cannot connect to 127.0.0.1:{port}: connection refused; is chef_server_url right and the server running?\n"
        )
    );
}

#[test]
fn lists_and_statuses() {
    let lab = Lab::new(|request| match request.line.as_str() {
        "GET /organizations/acme/pushy/jobs" => (
            200,
            format!(
                r#"[{{"id":"{ID}","command":"b","status":"complete","created_at":"Fri, 06 Dec 2013 21:05:32 GMT"}},
                    {{"id":"{ID}","command":"a","status":"running","created_at":"Fri, 06 Dec 2013 20:05:32 GMT"}}]"#
            ),
        ),
        _ => (200, job("running", r#"{"running":["a"]}"#)),
    });
    let one = |command: &str, hour: u8, status: &str| {
        format!(
            "command:    {command}\ncreated_at: Fri, 06 Dec 2013 {hour}:05:32 GMT\nid:         {ID}\nstatus:     {status}\n"
        )
    };
    let (old, new) = (one("a", 20, "running"), one("b", 21, "complete"));
    assert_eq!(lab.run(&["job", "list"]).out, format!("{old}\n{new}"));
    assert_eq!(lab.run(&["job", "list", "--limit", "1"]).out, new);
    let run = lab.run(&["job", "status", ID]);
    assert!(run.out.contains("nodes:\n  running: a\n") && run.code == Some(0), "{run:?}");
    assert_eq!(
        lab.received().last().unwrap().line,
        format!("GET /organizations/acme/pushy/jobs/{ID}?detail=1")
    );

    let empty = Lab::new(|_| (200, "[]".to_owned()));
    assert_eq!(empty.run(&["job", "list"]), Ran { out: "\n".to_owned(), err: String::new(), code: Some(0) });
    assert_eq!(empty.run(&["node", "status"]), Ran { out: String::new(), err: String::new(), code: Some(0) });
}

#[test]
fn node_states_of_names_lists_and_searches() {
    let lab = Lab::new(|request| {
        let line = request.line.strip_prefix("GET /organizations/acme/").unwrap();
        if line == "pushy/node_states" {
            (200, r#"[{"node_name":"b","availability":"available"},{"node_name":"a","availability":"available"}]"#.to_owned())
        } else if line.starts_with("search/node?q=role%3Aweb&") {
            (200, r#"{"total":1,"rows":[{"name":"found"}]}"#.to_owned())
        } else if line.starts_with("search/node?q=role%3Anone&") {
            (200, r#"{"total":0,"rows":[]}"#.to_owned())
        } else if line.starts_with("search/") {
            (404, String::new())
        } else {
            let name = line.rsplit('/').next().unwrap();
            (200, format!(r#"{{"node_name":"{name}","status":"offline","availability":"unavailable"}}"#))
        }
    });
    let out = |args: &[&str]| lab.run(&[&["node", "status"], args].concat()).out;
    assert_eq!(out(&["zeta", "a"]), "zeta\tunavailable\na\tunavailable\n");
    assert_eq!(
        out(&["c", "a", "d", "b", "e"]),
        "c\tunavailable\na\tavailable\nd\tunavailable\nb\tavailable\ne\tunavailable\n"
    );
    assert_eq!(out(&["role:web"]), "found\tunavailable\n");
    assert_eq!(
        out(&["-F", "json", "a"]),
        "[\n  {\n    \"node_name\": \"a\",\n    \"availability\": \"unavailable\"\n  }\n]\n"
    );

    let run = lab.run(&["job", "start", "-s", "role:none", "x", "ignored"]);
    assert_eq!(run.code, Some(1));
    assert_eq!(
        run.err,
        "WARNING: the named nodes are ignored because a search was given\n\
         ERROR: No nodes to run job on. The search \"role:none\" finds none.\n"
    );
    let run = lab.run(&["job", "start", "-s", "tag:x", "x"]);
    assert_eq!(run.code, Some(100));
    assert!(run.err.starts_with("ERROR: this server has no node search"), "{}", run.err);
}

#[test]
fn searched_nodes_are_what_the_job_gets() {
    let lab = Lab::new(|request| {
        start_or(request, || (200, r#"{"total":2,"rows":[{"name":"n1"},{"name":"n2"}]}"#.to_owned()))
    });
    assert_eq!(lab.run(&["job", "start", "-b", "-s", "*:*", "x"]).code, Some(0));
    let posted: serde_json::Value = serde_json::from_str(&lab.received()[1].body).unwrap();
    assert_eq!(
        (posted["nodes"].clone(), posted["quorum"].clone()),
        (serde_json::json!(["n1", "n2"]), 2.into())
    );
}

#[test]
fn an_old_server_is_spoken_to_in_its_way() {
    let lab = Lab::new(|request| {
        if request.body.contains("capture_output") {
            (400, r#"{"error":"invalid key supplied"}"#.to_owned())
        } else {
            start_or(request, || (200, job("complete", r#"{"succeeded":["a"]}"#)))
        }
    });
    let run = lab.run(&["job", "start", "-b", "x", "a"]);
    assert_eq!(
        run,
        Ran {
            out: format!("Started.  Job ID: {ID}\n"),
            err: "WARNING: Falling back to Push Jobs v1 mode.\n".to_owned(),
            code: Some(0)
        }
    );
    let run = lab.run(&["job", "start", "--with-env", r#"{"A":"b"}"#, "x", "a"]);
    assert_eq!(
        (run.err.as_str(), run.code),
        ("ERROR: Sending Environment attributes isn't possible for Push Jobs 1.0\n", Some(1))
    );
}

#[test]
fn ctrl_c_leaves_the_job_and_says_how_to_look_at_it() {
    let lab = Lab::new(|request| start_or(request, || (200, job("running", r#"{"running":["a"]}"#))));
    lab.write("other.rb", "knife[:quorum] = 1\n");
    let child = lab.command(&["job", "start", "-c", "other.rb", "x", "a"]).spawn().unwrap();
    // The second look at the job: the wait is under way.
    let end = Instant::now() + Duration::from_secs(20);
    while lab.received().len() < 3 {
        assert!(Instant::now() < end, "the program asks");
        std::thread::sleep(Duration::from_millis(5));
    }
    let interrupt =
        std::process::Command::new("/bin/kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupt.success());
    let run = ran(child.wait_with_output().unwrap());
    assert_eq!(
        run,
        Ran {
            out: format!("Started.  Job ID: {ID}\n"),
            err: format!(
                "Interrupted. The job goes on; look at it with: pushy job status {ID} -c other.rb\n"
            ),
            code: Some(2)
        }
    );
}

#[test]
fn a_flaky_server_is_borne() {
    let count = Mutex::new(0);
    let lab = Lab::new(move |request| {
        start_or(request, || {
            let mut count = count.lock().unwrap();
            *count += 1;
            if *count <= 2 {
                (502, "<html>".to_owned())
            } else {
                (200, job("complete", r#"{"succeeded":["a"]}"#))
            }
        })
    });
    let run = lab.run(&["job", "start", "x", "a"]);
    assert_eq!((run.code, run.err.as_str()), (Some(0), "WARNING: bad gateway; asking again\n"));
}

#[test]
fn the_environment_and_options_choose_server_user_and_key() {
    let lab = ending("complete", "{}");
    lab.write("elsewhere/config.rb", "chef_server_url 'http://127.0.0.1:1/organizations/x'\n");
    let run = ran(lab
        .command(&["job", "list"])
        .env("KNIFE_HOME", lab.path("elsewhere"))
        .env("PUSHY_SERVER_URL", lab.url())
        .env("PUSHY_USER", "alice")
        .env("PUSHY_KEY", lab.path(".chef/alice.pem"))
        .output()
        .unwrap());
    // The answer is no list; what counts is where it was asked for.
    assert_eq!(run.code, Some(100), "{run:?}");
    assert_eq!(lab.received()[0].line, "GET /organizations/acme/pushy/jobs");
}

#[test]
fn help_reads_like_a_manual_and_is_an_answer() {
    let lab = ending("complete", "{}");
    for args in
        [&["--help"][..], &["job", "start", "--help"], &["--version"], &["-v"], &["completions", "bash"]]
    {
        let run = lab.run(args);
        assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(!run.out.is_empty());
    }
    let help = lab.run(&["--help"]).out;
    for code in [
        "0  every node succeeded",
        "20  complete, some node did not succeed",
        "100  HTTP, signature or connection",
    ] {
        assert!(help.contains(code), "{help}");
    }
    let help = lab.run(&["job", "start", "--help"]).out;
    for option in [
        "--timeout",
        "-q, --quorum",
        "-s, --search",
        "--file",
        "--capture",
        "--with-env",
        "--as-user",
        "--in-dir",
        "-b, --nowait",
        "--poll-interval",
        "--lenient-exit",
        "--from-job",
        "--where",
        "--detach-on-interrupt",
        "-F, --format",
        "-c, --config",
        "--profile",
        "-u, --user",
        "-k, --key",
    ] {
        assert!(help.contains(option), "{option} is not in\n{help}");
    }
    assert_eq!(lab.run(&[]).code, Some(1));
    assert_eq!(lab.run(&["job"]).code, Some(1));
}
