//! REST calls against the transcripts of 2.4, 10.1, 10.2, 12.10–12.13.

use pushy_core::api::{
    self, Call, CancelJob, Channel, GetConfig, GetJob, GetNodeState, GetOutput, ListJobs, ListNodeStates,
    Method, Quorum, SearchNodes, StartJob, Who, file_option, is_v1_server, node_names, refusal, v1_fallback,
};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::job::{JobOptions, JobRequest, JobStatus};
use pushy_core::present::{Format, render};
use pushy_core::{ErrorCode, error};

use proptest::prelude::*;

const ID: &str = "4be1d6f0a9c30123456789abcdef0123";
const WHO: Who<'_> =
    Who { url: "https://chef/organizations/acme", user: "alice", key: "/home/alice/alice.pem" };

fn job(options: JobOptions) -> JobRequest {
    JobRequest {
        command: "restart nginx".to_owned(),
        nodes: node_names(["web-01", "web-02", "web-01"]).unwrap(),
        run_timeout: Some(60),
        quorum: Some(1),
        options,
    }
}

fn full() -> JobOptions {
    JobOptions {
        user: Some("deploy".to_owned()),
        dir: Some("/srv/app".to_owned()),
        env: Some(vec![("STAGE".to_owned(), "prod".to_owned())]),
        file: Some("base64:aGVsbG8K".to_owned()),
        capture: true,
        parameters: None,
    }
}

fn line(call: &impl Call) -> String {
    let request = call.request();
    let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
    format!("{} {}{query} {}", request.method.as_str(), request.path, request.accept)
}

#[test]
fn request_lines() {
    let id = JobId::new(ID).unwrap();
    let node = |name: &str| NodeName::new(name).unwrap();
    assert_eq!(line(&ListJobs), "GET pushy/jobs application/json");
    assert_eq!(
        line(&GetJob { id: &id, include_file: false, detail: false }),
        format!("GET pushy/jobs/{ID} application/json")
    );
    assert_eq!(
        line(&GetJob { id: &id, include_file: true, detail: false }),
        format!("GET pushy/jobs/{ID}?include_file=true application/json")
    );
    assert_eq!(
        line(&GetJob { id: &id, include_file: false, detail: true }),
        format!("GET pushy/jobs/{ID}?detail=1 application/json")
    );
    assert_eq!(
        line(&GetJob { id: &id, include_file: true, detail: true }),
        format!("GET pushy/jobs/{ID}?include_file=true&detail=1 application/json")
    );
    assert_eq!(
        line(&CancelJob { id: &id, nodes: None }),
        format!("POST pushy/jobs/{ID}/cancel application/json")
    );
    assert_eq!(
        line(&GetOutput { id: &id, node: &node("a b/ü"), channel: Channel::Stderr }),
        format!("GET pushy/jobs/{ID}/output/a%20b%2F%C3%BC/stderr application/octet-stream")
    );
    assert_eq!(line(&ListNodeStates), "GET pushy/node_states application/json");
    assert_eq!(line(&GetNodeState(&node("web-01:a+b"))), "GET pushy/node_states/web-01:a+b application/json");
    assert_eq!(
        line(&GetConfig { node: &node("n"), ccpk: "a+b&c" }),
        "GET pushy/config/n?ccpk=a%2Bb%26c&version=2.0 application/json"
    );
    assert_eq!(
        line(&SearchNodes { query: "role:web AND x:*", start: 1000, rows: 1000 }),
        "GET search/node?q=role%3Aweb%20AND%20x%3A%2A&start=1000&rows=1000 application/json"
    );
}

#[test]
fn start_bodies() {
    let check = |options, want: &str| {
        let job = job(options);
        let request = StartJob(&job).request();
        assert_eq!((request.method, request.path.as_str()), (Method::Post, "pushy/jobs"));
        assert_eq!(String::from_utf8(request.body).unwrap(), want);
    };
    let common = r#"{"command":"restart nginx","nodes":["web-01","web-02"],"quorum":1,"run_timeout":60,"#;
    // `env` only when given (decision 14); an empty one that was given goes out.
    check(JobOptions::default(), &format!(r#"{common}"capture_output":false}}"#));
    check(
        JobOptions { env: Some(Vec::new()), ..JobOptions::default() },
        &format!(r#"{common}"capture_output":false,"env":{{}}}}"#),
    );
    check(
        full(),
        &format!(
            r#"{common}"capture_output":true,"env":{{"STAGE":"prod"}},"file":"base64:aGVsbG8K","dir":"/srv/app","user":"deploy"}}"#
        ),
    );
}

#[test]
fn parameters_go_out_as_texts_and_are_checked_before() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let given = api::parameters(vec![pair("version", "1.2"), pair("n", "")]).unwrap();
    let body = StartJob(&job(JobOptions { parameters: given, ..JobOptions::default() })).request().body;
    let body = String::from_utf8(body).unwrap();
    assert!(
        body.contains(r#""parameters":{"n":"","version":"1.2"}"#)
            || body.contains(r#""parameters":{"version":"1.2","n":""}"#),
        "{body}"
    );
    assert_eq!(api::parameters(Vec::new()).unwrap(), None);
    assert_eq!(api::parameter_option("a=b=c").unwrap(), pair("a", "b=c"));
    assert_eq!(api::parameter_option("a=").unwrap(), pair("a", ""));
    let long = format!("a={}", "s".repeat(4097));
    for (text, expected) in [
        ("a", "a parameter must be NAME=VALUE"),
        ("=1", "\"\" is no parameter's name"),
        ("-a=1", "\"-a\" is no parameter's name"),
        ("a=\0secret", "the value of a has a NUL character"),
        (&long, "the value of a is longer than 4096 bytes"),
    ] {
        let error = api::parameter_option(text).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret") && !error.contains("sss"), "{error}");
    }
    let twice = api::parameters(vec![pair("a", "1"), pair("a", "2")]).unwrap_err();
    assert_eq!(twice.to_string(), "parameter a is given twice");
    let many = (0..65).map(|n| pair(&format!("p{n}"), "")).collect();
    assert_eq!(api::parameters(many).unwrap_err().to_string(), "a job takes at most 64 parameters");
}

#[test]
fn v1_servers_get_what_they_know_or_nothing() {
    assert!(is_v1_server(400, br#"{"error":"invalid key supplied"}"#));
    assert!(is_v1_server(400, br#"{"error":["invalid key supplied"]}"#));
    assert!(!is_v1_server(400, br#"{"error":"invalid file size (must be <= 100000 bytes)"}"#), "D-70");
    assert!(!is_v1_server(404, br#"{"error":"invalid key supplied"}"#));
    assert!(!is_v1_server(400, b"<html>"));

    let plain = v1_fallback(&job(JobOptions { env: Some(Vec::new()), ..JobOptions::default() })).unwrap();
    assert_eq!(
        String::from_utf8(plain.body).unwrap(),
        r#"{"command":"restart nginx","nodes":["web-01","web-02"],"quorum":1,"run_timeout":60}"#
    );
    let none = JobOptions::default;
    let some = || Some("x".to_owned());
    for (options, want) in [
        (
            JobOptions { env: full().env, ..none() },
            "Sending Environment attributes isn't possible for Push Jobs 1.0",
        ),
        (JobOptions { file: some(), ..none() }, "Can't use a 2.0 feature (send_file) with a 1.0 server"),
        (JobOptions { dir: some(), ..none() }, "Can't use a 2.0 feature (in_dir) with a 1.0 server"),
        (JobOptions { user: some(), ..none() }, "Can't use a 2.0 feature (as_user) with a 1.0 server"),
        (JobOptions { capture: true, ..none() }, "Can't use a 2.0 feature (capture) with a 1.0 server"),
    ] {
        let error = v1_fallback(&job(options)).unwrap_err();
        assert_eq!((error.code(), error.message()), (ErrorCode::InvalidArgument, want), "D-71");
    }
}

#[test]
fn quorums() {
    for (text, nodes, want) in [
        ("100%", 3, 3),
        ("50%", 3, 2),
        ("50%", 2, 1),
        ("1%", 1, 1),
        ("0%", 7, 0),
        ("33%", 100, 33),
        ("7%", 100, 7),
        ("2", 5, 2),
        ("0", 5, 0),
        ("4294967295%", usize::MAX, u32::MAX),
    ] {
        assert_eq!(Quorum::parse(text).unwrap().of(nodes), want, "{text} of {nodes}");
    }
    for bad in ["", "%", "-1", "+1", "1.5", "50 %", "half", "50%%", "4294967296", "٣"] {
        let error = Quorum::parse(bad).unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
        assert!(error.message().starts_with("Invalid Format please enter integer or percent"), "{bad}");
    }
}

#[test]
fn files() {
    assert_eq!(file_option(b"").unwrap(), "raw:");
    assert_eq!(file_option("grün\n".as_bytes()).unwrap(), "raw:grün\n");
    assert_eq!(file_option(b"a\0b").unwrap(), "base64:YQBi");
    assert_eq!(file_option(&[0xff, 0xfe]).unwrap(), "base64://4=");
    assert!(file_option(&[b'x'; 100_000]).is_ok());
    assert_eq!(file_option(&[b'x'; 100_001]).unwrap_err().code(), ErrorCode::TooLarge);
}

#[test]
fn environments() {
    let read = |json| pushy_core::api::env_option(json);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(read("{}").unwrap(), []);
    assert_eq!(
        read(r#"{"B":"x y","A":1,"C":true}"#).unwrap(),
        [pair("B", "x y"), pair("A", "1"), pair("C", "true")]
    );
    for (bad, want) in [
        ("", "not valid JSON (line 1, column 0)"),
        (r#"{"A":"secret""#, "not valid JSON (line 1, column 13)"),
        (r#"["A"]"#, r#"must be a JSON object, such as '{"STAGE": "prod"}'"#),
        (r#"{"A":null}"#, r#"the value of "A" is not a text"#),
        (r#"{"A":["secret"]}"#, r#"the value of "A" is not a text"#),
    ] {
        let error = read(bad).unwrap_err();
        assert_eq!((error.code(), error.message()), (ErrorCode::InvalidArgument, want), "D-72");
    }
}

#[test]
fn names() {
    let none: [&str; 0] = [];
    assert_eq!(
        node_names(none).unwrap_err().message(),
        "No nodes to run job on. Specify nodes as arguments or use -s to specify a search query."
    );
    let error = node_names(["ok", "not\nok"]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidName);
    assert!(error.message().starts_with(r#""not\nok": "#));
}

#[test]
fn answers() {
    let request = job(JobOptions::default());
    let started = StartJob(&request)
        .answer(
            format!(r#"{{"uri":"https://chef.example.com/organizations/acme/pushy/jobs/{ID}"}}"#).as_bytes(),
        )
        .unwrap();
    assert_eq!(started.id.as_str(), ID);
    for bad in [
        "",
        "[]",
        "{}",
        r#"{"uri":"x"}"#,
        r#"{"uri":"https://ü/4BE1D6F0A9C30123456789ABCDEF0123"}"#,
        "<html>",
    ] {
        assert_eq!(
            StartJob(&request).answer(bad.as_bytes()).unwrap_err().code(),
            ErrorCode::Protocol,
            "{bad}"
        );
    }

    let body = format!(
        r#"{{"nodes":{{"succeeded":["a"],"ready":["b","c"],"running":["d"],"new":["e"],"sleeping":["f"]}},
            "id":"{ID}","command":"x","status":"running","run_timeout":60,"later":1}}"#
    );
    let id = JobId::new(ID).unwrap();
    let get = GetJob { id: &id, include_file: false, detail: false };
    let view = get.answer(body.as_bytes()).unwrap();
    assert_eq!((view.status(), view.node_count(), view.in_progress()), (JobStatus::Running, 6, 4));
    assert_eq!(view.document()["later"], 1);
    for (bad, names) in [
        (r#"{"status":"running"}"#.to_owned(), "`id`"),
        (format!(r#"{{"id":"{ID}"}}"#), "`status`"),
        (format!(r#"{{"id":"{ID}","status":"paused"}}"#), "paused"),
        (format!(r#"{{"id":"{ID}","status":"running","nodes":[]}}"#), "`nodes`"),
        (format!(r#"{{"id":"{ID}","status":"running","nodes":{{"new":1}}}}"#), "`nodes`"),
    ] {
        let error = get.answer(bad.as_bytes()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Protocol);
        assert!(error.message().contains(names), "{bad}: {error}");
    }

    let (a, b) = ("a".repeat(32), "b".repeat(32));
    let list = format!(
        r#"[{{"id":"{b}","status":"complete","created_at":"Tue, 04 Mar 2025 11:00:00 GMT"}},
            {{"id":"{a}","status":"running","created_at":"Tue, 04 Mar 2025 10:15:00 GMT"}}]"#
    );
    let jobs = ListJobs.answer(list.as_bytes()).unwrap();
    assert_eq!(jobs.iter().map(|j| j.id().as_str()).collect::<Vec<_>>(), [&a, &b], "oldest first");

    let states = ListNodeStates
        .answer(br#"[{"node_name":"b","availability":"unavailable"},{"node_name":"a","availability":"available"}]"#)
        .unwrap();
    assert_eq!((states[0].node_name.as_str(), states[0].availability.as_str()), ("a", "available"));
    let name = NodeName::new("web-03").unwrap();
    let state = GetNodeState(&name).answer(br#"{"status":"offline","availability":"unavailable"}"#).unwrap();
    assert_eq!((state.node_name.as_str(), state.status.as_deref()), ("web-03", Some("offline")));

    let page = SearchNodes { query: "*:*", start: 0, rows: 2 }
        .answer(br#"{"total":3,"start":0,"rows":[{"name":"a"},{"no":"name"}]}"#)
        .unwrap();
    assert_eq!((page.total, page.rows, page.names), (3, 2, vec!["a".to_owned()]));
}

#[test]
fn refusals() {
    let job = job(JobOptions::default());
    let request = StartJob(&job).request();
    let check = |status: u16, body: &str, code: ErrorCode, want: &str| {
        let error: error::Error =
            refusal(WHO, &request, status, body.as_bytes(), Some("Tue, 04 Mar 2025 10:15:00 GMT"));
        assert_eq!((error.code(), error.message()), (code, want), "{status} {body}");
    };
    check(
        401,
        r#"{"error":["Invalid signature for user or client 'alice'"]}"#,
        ErrorCode::Unauthorized,
        "Failed to authenticate to https://chef/organizations/acme as alice with key /home/alice/alice.pem: \
         Invalid signature for user or client 'alice'",
    );
    check(
        401,
        r#"{"error":["Failed to authenticate as alice. Synchronize the clock on your host."]}"#,
        ErrorCode::ClockSkew,
        "Failed to authenticate to https://chef/organizations/acme as alice: the clock of this host is off by 15 minutes \
         or more (the server's says Tue, 04 Mar 2025 10:15:00 GMT); set it and try again",
    );
    check(
        403,
        r#"{"error":["User or client 'alice' does not have access to that action on this server."]}"#,
        ErrorCode::Forbidden,
        "You authenticated successfully to https://chef/organizations/acme as alice but you are not authorized for this \
         action: User or client 'alice' does not have access to that action on this server.",
    );
    check(
        404,
        "<html>not found</html>",
        ErrorCode::NotFound,
        "The object you are looking for could not be found (pushy/jobs)",
    );
    check(
        400,
        r#"{"error":"at least one node must be supplied"}"#,
        ErrorCode::Server,
        "The data in your request was invalid: at least one node must be supplied",
    );
    // D-02: a text sent as character codes.
    check(400, r#"{"error":[98,97,100]}"#, ErrorCode::Server, "The data in your request was invalid: bad");
    check(
        400,
        r#"{"error":["a\u001b[31m\nb"]}"#,
        ErrorCode::Server,
        "The data in your request was invalid: a [31m b",
    );
    check(413, "", ErrorCode::TooLarge, "The request is larger than the server accepts");
    check(500, "<html>", ErrorCode::Server, "internal server error");
    check(502, "", ErrorCode::Server, "bad gateway");
    check(503, "{}", ErrorCode::Server, "Service temporarily unavailable");
    check(418, "", ErrorCode::Server, "https://chef/organizations/acme answered with HTTP status 418");
}

/// JSON of the shapes that servers send, and shapes near them.
fn documents() -> impl Strategy<Value = serde_json::Value> {
    let text = proptest::sample::select(vec![
        "id",
        "status",
        "nodes",
        "uri",
        "running",
        "complete",
        "succeeded",
        "error",
        "rows",
        "name",
        "node_name",
        "availability",
        "total",
        ID,
        "x\n\u{1b}: #",
        "",
        "~",
        " 1",
        "http://ü/",
    ]);
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        text.clone().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            proptest::collection::btree_map(text.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_a_server_says_can_stop_us(document in documents(), bytes in proptest::collection::vec(any::<u8>(), 0..64), status: u16) {
        let request = job(JobOptions::default());
        let id = JobId::new(ID).unwrap();
        let node = NodeName::new("n").unwrap();
        for body in [document.to_string().into_bytes(), bytes] {
            let _ = StartJob(&request).answer(&body);
            let _ = ListJobs.answer(&body);
            let _ = ListNodeStates.answer(&body);
            let _ = GetNodeState(&node).answer(&body);
            let _ = SearchNodes { query: "x", start: 0, rows: 1 }.answer(&body);
            let _ = is_v1_server(status, &body);
            let refused = refusal(WHO, &StartJob(&request).request(), status, &body, None);
            prop_assert!(!refused.message().chars().any(char::is_control), "one line: {:?}", refused);
            if let Ok(view) = (GetJob { id: &id, include_file: false, detail: false }).answer(&body) {
                prop_assert!(view.in_progress() <= view.node_count());
            }
        }
        for format in [Format::Summary, Format::Json, Format::Yaml] {
            let text = render(&document, format, false);
            prop_assert!(text.ends_with('\n'));
            prop_assert!(!text.contains('\u{1b}') || format == Format::Json, "{text:?}");
        }
    }

    #[test]
    fn nothing_a_user_types_can_stop_us(text: String) {
        let _ = Quorum::parse(&text);
        let _ = pushy_core::api::env_option(&text);
        let _ = node_names([&text]);
        let _ = Channel::parse(&text);
        let _ = file_option(text.as_bytes());
    }
}
