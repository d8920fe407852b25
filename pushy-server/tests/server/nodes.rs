//! Nodes and search of a server that stands alone (decision 44).

use pushy_core::node_document::{MAX_DOCUMENT, NodeDocument};
use serde_json::{Value, json};

use pushy_server::admin::{Command, NewKey};

use crate::lab::{Actor, Answer, Lab, arg, cli, public_key};

const ORG: &str = "/organizations/acme";

fn document(role: &str, tag: &str) -> NodeDocument {
    NodeDocument {
        fqdn: Some("n.example.com".into()),
        ipaddress: Some("10.0.0.1".into()),
        platform: Some("debian".into()),
        environment: Some("dev".into()),
        roles: vec![role.into()],
        tags: vec![tag.into()],
        whitelist: [("tomcat6_restart".to_owned(), json!({ "command_line": "true", "user": "tomcat" }))]
            .into_iter()
            .collect(),
        ..NodeDocument::default()
    }
}

async fn publish(lab: &Lab, node: &Actor, document: &NodeDocument) -> Answer {
    let path = format!("~/nodes/{}", node.name);
    lab.call("PUT", &path).by(node).json(&document.to_json(&node.name)).send().await
}

async fn search(lab: &Lab, actor: &Actor, parameters: &str) -> Answer {
    lab.call("GET", &format!("{ORG}/search/node?{parameters}")).by(actor).send().await
}

/// The names found, in their order.
async fn found(lab: &Lab, query: &str) -> Vec<String> {
    let answer = search(lab, &lab.admin, &format!("q={query}")).await;
    answer.check_status(200);
    let names = answer.json()["rows"].as_array().expect("rows").clone();
    names.iter().map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn nodes_are_listed_shown_and_searched() {
    let lab = Lab::start().await;
    let web = lab.node("web1", 1).await;
    lab.node("web2", 1).await;
    // Before an agent has spoken there is the name.
    assert_eq!(found(&lab, "*:*").await, ["web1", "web2"]);
    publish(&lab, &web, &document("web", "blue")).await.check_status(200);

    let base = format!("http://{}{ORG}", lab.address);
    let list = lab.get(&lab.admin, &format!("{ORG}/nodes")).await;
    assert_eq!(
        list.json(),
        json!({ "web1": format!("{base}/nodes/web1"), "web2": format!("{base}/nodes/web2") })
    );
    let node = lab.get(&lab.admin, &format!("{ORG}/nodes/web1")).await.json();
    assert!(node["automatic"]["ohai_time"].as_f64().is_some_and(|at| at > 1.6e9), "{node}");
    let expected = json!({
        "name": "web1", "chef_environment": "dev", "json_class": "Chef::Node", "chef_type": "node",
        "default": {}, "override": {}, "normal": { "tags": ["blue"] }, "run_list": ["role[web]"],
    });
    for (member, value) in expected.as_object().expect("a hash") {
        assert_eq!(node[member], *value, "{member}");
    }
    assert_eq!(node["automatic"]["push_jobs"]["whitelist"]["tomcat6_restart"]["user"], "tomcat");
    lab.get(&lab.admin, &format!("{ORG}/nodes/gone"))
        .await
        .check(404, r#"{"error":["node 'gone' not found"]}"#);
    lab.get(&lab.admin, &format!("{ORG}/environments/dev/nodes"))
        .await
        .check(200, &json!({ "web1": format!("{base}/nodes/web1") }).to_string());
    lab.get(&lab.admin, &format!("{ORG}/search"))
        .await
        .check(200, &json!({ "node": format!("{base}/search/node") }).to_string());

    assert_eq!(found(&lab, "role:web").await, ["web1"]);
    assert_eq!(found(&lab, "NOT%20role:web").await, ["web2"]);
    assert_eq!(found(&lab, "push_jobs_whitelist_tomcat6_restart_user:tom*").await, ["web1"]);
    let page = search(&lab, &lab.admin, "q=name:web*&sort=name%20desc&start=1&rows=1").await.json();
    assert_eq!(
        (&page["total"], &page["start"], &page["rows"][0]["name"]),
        (&json!(2), &json!(1), &json!("web1"))
    );
    search(&lab, &lab.admin, "rows=0").await.check(200, r#"{"total":2,"start":0,"rows":[]}"#);

    let filter = r#"{"n":["name"],"user":["push_jobs","whitelist","tomcat6_restart","user"],"none":["a","b"],"empty":[]}"#;
    let partial =
        lab.call("POST", &format!("{ORG}/search/node?q=role:web")).by(&lab.admin).json(filter).send().await;
    partial.check(
        200,
        &format!(
            r#"{{"total":1,"start":0,"rows":[{{"url":"{base}/nodes/web1","data":{{"n":"web1","user":"tomcat","none":null,"empty":null}}}}]}}"#
        ),
    );
}

#[tokio::test]
async fn refusals() {
    let lab = Lab::start().await;
    let (web, other) = (lab.node("web1", 1).await, lab.node("web2", 2).await);
    let text = |answer: &Answer| answer.json()["error"][0].as_str().expect("a text").to_owned();
    let bad = search(&lab, &lab.admin, "q=name:(a").await;
    bad.check_status(400);
    assert_eq!(text(&bad), "invalid search query: 'name:(a': at character 8: a ')' is missing");
    search(&lab, &lab.admin, "rows=many").await.check(400, r#"{"error":["invalid 'rows' value: 'many'"]}"#);
    lab.get(&lab.admin, &format!("{ORG}/search/role?q=*:*"))
        .await
        .check(404, r#"{"error":["I don't know how to search for role data objects."]}"#);
    for body in ["", "[]", r#"{"a":"b"}"#, r#"{"a":[1]}"#] {
        let path = format!("{ORG}/search/node?q=*:*");
        lab.call("POST", &path).by(&lab.admin).json(body).send().await.check_status(400);
    }

    // A node speaks for itself alone, in a form and size that can be used.
    let path = "~/nodes/web1";
    let put = |actor: &Actor, body: String| lab.call("PUT", path).by(actor).json(&body).send();
    let said = document("web", "blue").to_json("web1");
    put(&other, said.clone()).await.check(403, r#"{"error":["Client and node name must match"]}"#);
    put(&lab.admin, said.clone()).await.check_status(403);
    lab.call("PUT", path).by(&web).body(said.clone()).send().await.check_status(415);
    let big = format!(r#"{{"fqdn":"{}"}}"#, "x".repeat(MAX_DOCUMENT));
    put(&web, big).await.check(413, r#"{"error":["JSON must be no more than 262144 bytes."]}"#);
    let deep = format!(r#"{{"push_jobs":{{"whitelist":{{"a":{}1{}}}}}}}"#, "[".repeat(9), "]".repeat(9));
    for body in [
        "",
        "[]",
        "{",
        r#"{"name":"web2"}"#,
        r#"{"roles":["a b"]}"#,
        r#"{"roles":"a"}"#,
        r#"{"chef_environment":"prod.eu"}"#,
        deep.as_str(),
    ] {
        put(&web, body.to_owned()).await.check_status(400);
    }
    assert_eq!(found(&lab, "fqdn:*").await, [""; 0]);
    lab.call("GET", path).by(&web).send().await.check_status(405);
    lab.call("DELETE", &format!("{ORG}/nodes/web1")).by(&lab.admin).send().await.check_status(405);

    // Who may not read sees no nodes; who is nobody still less.
    lab.group("pushy_job_readers", &[]).await;
    for path in ["nodes", "nodes/web1", "search", "search/node?q=*:*", "environments/_default/nodes"] {
        lab.get(&lab.admin, &format!("{ORG}/{path}")).await.check_status(403);
        lab.call("GET", &format!("{ORG}/{path}")).send().await.check_status(400);
    }
    publish(&lab, &web, &document("web", "blue")).await.check_status(200);
}

#[tokio::test]
async fn what_the_administrator_sets_wins_and_lasts() {
    let lab = Lab::start().await;
    let web = lab.node("web1", 1).await;
    publish(&lab, &web, &document("db", "red")).await.check_status(200);
    let dir = arg(&lab.dir).to_owned();
    let node = |words: &[&str]| {
        let all: Vec<String> =
            ["-d", &dir, "node"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        async move { cli(&all.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    node(&["set", "web1", "roles=web,lb", "environment=prod"]).await.expect("it is set");
    for round in 0..2 {
        assert_eq!(found(&lab, "role:db").await, [""; 0], "round {round}");
        assert_eq!(found(&lab, "roles:lb%20AND%20chef_environment:prod%20AND%20tags:red").await, ["web1"]);
        // The node may say what it likes.
        publish(&lab, &web, &document("db", "red")).await.check_status(200);
    }
    let shown = node(&["show", "web1"]).await.expect("shown");
    for line in [
        "environment  prod (set here)",
        "roles        web, lb (set here)",
        "tags         red",
        "commands     tomcat6_restart",
    ] {
        assert!(shown.lines().any(|l| l == line), "{line} in\n{shown}");
    }
    for (words, text) in [
        (&["set", "web1"][..], "nothing to set"),
        (&["set", "gone", "roles=a"], "no node 'gone'"),
        (&["set", "web1", "colour=red"], "no field 'colour'"),
        (&["set", "web1", "environment=a b"], "environment must be"),
        (&["show", "gone"], "no node 'gone'"),
    ] {
        let refused = node(words).await.expect_err(text);
        assert!(refused.contains(text), "{refused}");
    }

    // After a restart all is as before; then the node is left to itself again; then it is gone.
    let lab = Lab::start_in(lab.stop().await).await;
    assert_eq!(found(&lab, "role:web%20AND%20fqdn:n.example.com").await, ["web1"]);
    node(&["unset", "web1", "roles"]).await.expect("it is unset");
    assert_eq!(found(&lab, "role:db%20AND%20chef_environment:prod").await, ["web1"]);
    node(&["remove", "web1"]).await.expect("it is removed");
    assert_eq!(found(&lab, "*:*").await, [""; 0]);
    let again = lab.node("web1", 1).await;
    assert_eq!(found(&lab, "fqdn:*").await, [""; 0]);
    publish(&lab, &again, &document("db", "red")).await.check_status(200);
    let lab = Lab::start_in(lab.stop().await).await;
    let node: Value = lab.get(&lab.admin, &format!("{ORG}/nodes/web1")).await.json();
    assert_eq!((&node["chef_environment"], &node["run_list"]), (&json!("dev"), &json!(["role[db]"])));
}

#[tokio::test]
async fn changes_at_the_same_time_are_made_one_after_the_other() {
    let lab = Lab::start().await;
    lab.node("web-1", 0).await;
    let set = |field: &str| {
        let fields = vec![(field.to_owned(), Some("x".to_owned()))];
        Command::NodeSet { org: None, names: vec!["web-1".into()], fields }
    };
    let add = || {
        let nodes = vec![NewKey { name: "web-2".into(), public_key: public_key(1) }];
        Command::NodeAdd { org: None, nodes }
    };
    let (roles, tags, one, other) = tokio::join!(
        lab.operate(set("roles")),
        lab.operate(set("tags")),
        lab.operate(add()),
        lab.operate(add())
    );
    roles.expect("set");
    tags.expect("set");
    assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
    let found = lab.get(&lab.admin, "/organizations/acme/search/node?q=roles:x+AND+tags:x").await.json();
    assert_eq!(found["total"], 1, "{found}");
    lab.stop().await;
}
