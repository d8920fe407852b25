//! What operators change on a running node: files of the whitelist, and parameters of jobs. Server, agent and `pushy` as real
//! programs.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use pushy_tests::http::Http;
use pushy_tests::process::bin_dir;
use pushy_tests::site::Site;
use pushy_tests::until;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

/// `pushy` as the administrator.
fn pushy(site: &Site, arguments: &[&str]) -> Output {
    let home = site.path("server/admin");
    let mut command = Command::new(bin_dir().join("pushy"));
    command.args(arguments).env("HOME", &home).current_dir(&home).env_remove("CHEF_HOME");
    command.output().expect("it runs")
}

fn get(site: &Site, resource: &str) -> Value {
    let path = format!("/organizations/acme/pushy/{resource}");
    let (status, body) =
        Http::new(site.host()).call(("admin", site.admin()), "GET", &path, "").expect("an answer");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    serde_json::from_slice(&body).expect("JSON")
}

/// A file of the drop-in directory that is there before the agent, one that comes while a job runs, and a job on each.
#[test]
fn whitelists_change_and_commands_take_parameters() {
    let mut site = Site::start(&[], "");
    let folder = site.path("push-jobs-client.d");
    fs::create_dir(&folder).expect("made");
    let go = site.path("go");
    fs::write(
        folder.join("10-deploy.rb"),
        "whitelist({ 'deploy' => {\n  command_line: ['printf', '[%s]', '--version={version}', '{count}', '{text}'],\n\
         parameters: { version: { pattern: /[\\d.]+/ }, count: { type: 'integer', max: 9, default: 1 }, text: {} } } })",
    )
    .expect("written");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", go.display());
    site.start_agent("web1", &[("wait", wait), ("later", "exit 3".to_owned())]);
    until("the node to be available", LIMIT, || {
        (get(&site, "node_states/web1")["availability"] == "available").then_some(())
    });

    // Verbatim: no shell, no placeholder, nothing of printf's.
    let text = "$(id) `id` {version} ; 'x' \"y\" \\n %s";
    let done = pushy(
        &site,
        &[
            "-F",
            "json",
            "job",
            "start",
            "--capture",
            "deploy",
            "web1",
            "-p",
            "version=1.2",
            "-p",
            &format!("text={text}"),
        ],
    );
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let job: Value = serde_json::from_slice(&done.stdout).expect("one document");
    let id = job["id"].as_str().expect("an id");
    let printed = pushy(&site, &["job", "output", id, "web1"]);
    assert_eq!(
        String::from_utf8_lossy(&printed.stdout),
        format!("[--version=1.2][1][{text}]"),
        "{printed:?}"
    );
    let detail = get(&site, &format!("jobs/{id}?detail=1"));
    assert_eq!(detail["parameters"], serde_json::json!({ "version": "1.2", "text": text }));
    assert_eq!(get(&site, &format!("jobs/{id}")).get("parameters"), None, "the original's answer");

    // Refused by the node, which names the rule.
    for (parameter, why) in [
        ("version=1;2", "parameter version must be text that matches /[\\d.]+/"),
        ("more=1", "there is no parameter more"),
    ] {
        let done =
            pushy(&site, &["-F", "json", "job", "start", "deploy", "web1", "-p", "text=x", "-p", parameter]);
        assert_eq!(done.status.code(), Some(21), "{done:?}");
        let job: Value = serde_json::from_slice(&done.stdout).expect("one document");
        let id = job["id"].as_str().expect("an id");
        let reason = &get(&site, &format!("jobs/{id}?detail=1"))["reasons"]["web1"];
        assert_eq!(reason["code"], "bad_parameters", "{reason}");
        assert!(reason["text"].as_str().is_some_and(|text| text.contains(why)), "{reason}");
    }

    // A change while a job runs is in force when it has ended, and the job is not touched.
    let done = pushy(&site, &["-F", "json", "job", "start", "--nowait", "wait", "web1"]);
    let job: Value = serde_json::from_slice(&done.stdout).expect("one document");
    let id = job["id"].as_str().expect("an id").to_owned();
    until("the job to run", LIMIT, || {
        (get(&site, &format!("jobs/{id}"))["status"] == "running").then_some(())
    });
    let replaced = folder.join("20-later.rb.new");
    fs::write(&replaced, "whitelist({ 'later' => 'true' })").expect("written");
    fs::rename(&replaced, folder.join("20-later.rb")).expect("renamed");
    until("the change to be noticed", LIMIT, || {
        site.agents()[0]
            .output()
            .contains("the whitelist has changed: 3 entries, 2 drop-in files")
            .then_some(())
    });
    assert!(!site.agents()[0].output().contains("the new configuration is in force"));
    assert_eq!(get(&site, &format!("jobs/{id}"))["status"], "running");
    fs::write(&go, "").expect("written");
    until("the job to end", LIMIT, || {
        let job = get(&site, &format!("jobs/{id}"));
        (job["nodes"]["succeeded"][0] == "web1").then_some(())
    });
    until("the change to be in force", LIMIT, || {
        site.agents()[0].output().contains("the new configuration is in force").then_some(())
    });
    let done = pushy(&site, &["job", "start", "later", "web1"]);
    assert_eq!(done.status.code(), Some(0), "the later file's entry counts: {done:?}");
    fs::remove_file(folder.join("20-later.rb")).expect("removed");
    until("the file's end to be noticed", LIMIT, || {
        site.agents()[0].output().contains("3 entries, 1 drop-in files").then_some(())
    });
    let done = pushy(&site, &["job", "start", "later", "web1"]);
    assert_eq!(done.status.code(), Some(20), "the main file's entry is back: {done:?}");
}
