//! The authentication headers, one thing wrong at a time: the checklist of 2.6, F.

use pushy_core::auth::Version;

use crate::lab::{Actor, Call, Lab};

const UNSUPPORTED: &str = r#"{"error":["Unsupported authentication protocol version"]}"#;
const BAD_TIME: &str = r#"{"error":["bad header(s) 'X-Ops-Timestamp'"]}"#;
const CLOCK: &str = r#"{"error":["Failed to authenticate as admin. Synchronize the clock on your host."]}"#;
const BAD: &str = r#"{"error":["Invalid signature for user or client 'admin'"]}"#;

fn missing(names: &str) -> String {
    format!(r#"{{"error":["missing required authentication header(s) {names}"]}}"#)
}

/// The same cases against one resource.
async fn battery(lab: &Lab, method: &str, path: &str, body: &str, success: u16) {
    let admin = &lab.admin;
    let call = || -> Call<'_> {
        let call = lab.call(method, path).by(admin);
        if body.is_empty() { call } else { call.json(body) }
    };
    for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
        call().version(version).send().await.check_status(success);
    }
    call().seconds(-30).send().await.check_status(success);
    for header in ["X-Ops-Userid", "X-Ops-Timestamp", "X-Ops-Sign", "X-Ops-Content-Hash"] {
        let name = if header == "X-Ops-Userid" { "'X-Ops-UserId'".to_owned() } else { format!("'{header}'") };
        call().without(header).send().await.check(400, &missing(&name));
        call().header(header, "").send().await.check(400, &missing(&name));
    }
    let all = missing("'X-Ops-UserId', 'X-Ops-Timestamp', 'X-Ops-Sign', 'X-Ops-Content-Hash'");
    lab.call(method, path).body(body).send().await.check(400, &all);
    for sign in ["version=8.1", "algorithm=sha1", "algorithm=sha256;version=1.1;"] {
        call().header("X-Ops-Sign", sign).send().await.check(400, UNSUPPORTED);
    }
    let stranger = Actor { name: "nobody".into(), ..admin.clone() };
    let unknown = r#"{"error":["Failed to authenticate as 'nobody'. Ensure that your node_name and client key are correct."]}"#;
    let as_stranger = call().by(&stranger).send().await;
    as_stranger.check(401, unknown);
    call().header("X-Ops-Userid", "nobody").send().await.check(401, unknown);
    let swapped = call().header("X-Ops-Userid", "normal").send().await;
    swapped.check(401, r#"{"error":["Invalid signature for user or client 'normal'"]}"#);
    call().header("X-Ops-Timestamp", "garbage").send().await.check(401, BAD_TIME);
    for seconds in [-3600, 3600, -901, 901] {
        let answer = call().seconds(seconds).send().await;
        answer.check(401, CLOCK);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    for hash in ["garbage", "gv6LK9dkYPm5qJ1RiKEBhMEMcrM="] {
        for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
            call().version(version).header("X-Ops-Content-Hash", hash).send().await.check(401, BAD);
        }
    }
    call().sign_body("another body").send().await.check(401, BAD);
    call().sign_method(if method == "GET" { "POST" } else { "GET" }).send().await.check(401, BAD);
    call().sign_path("/organizations/acme/pushy/other").send().await.check(401, BAD);
    for line in ["X-Ops-Authorization-1", "X-Ops-Authorization-3", "X-Ops-Authorization-6"] {
        call().without(line).send().await.check(401, BAD);
        call().header(line, "").send().await.check(401, BAD);
        call().header(line, "AAAA").send().await.check(401, BAD);
        call().header(line, "*garbage*").send().await.check(401, BAD);
    }
    let mut none = call();
    for number in 1..=6 {
        none = none.without(&format!("X-Ops-Authorization-{number}"));
    }
    none.send().await.check(401, BAD);
}

#[tokio::test]
async fn f_headers() {
    let lab = Lab::start().await;
    lab.user("normal", 0).await;
    let body = r#"{"command":"x","nodes":["n"]}"#;
    let id = lab.post(&lab.admin, body).await.job_id();
    let ccpk = "ccpk=1234567890123456789012345678901234567890";
    battery(&lab, "GET", &format!("~/config/n?{ccpk}"), "", 200).await;
    battery(&lab, "GET", &format!("~/jobs/{id}"), "", 200).await;
    battery(&lab, "GET", "~/jobs", "", 200).await;
    battery(&lab, "GET", "~/node_states", "", 200).await;
    battery(&lab, "GET", "~/node_states/n", "", 200).await;
    battery(&lab, "POST", "~/jobs", body, 201).await;
    lab.stop().await;
}

#[tokio::test]
async fn checks_come_in_their_order() {
    let lab = Lab::start().await;
    let admin = &lab.admin;
    // Headers before the body, the body before the organization, the organization before the principal.
    lab.call("POST", "~/jobs").body("nonsense").send().await.check_status(400);
    let late = lab.call("POST", "~/jobs").by(admin).seconds(3600).json("nonsense").send().await;
    late.check(401, CLOCK);
    let nobody = Actor { name: "nobody".into(), ..admin.clone() };
    let path = "/organizations/bogus/pushy/jobs";
    let invalid = r#"{"error":"invalid JSON supplied"}"#;
    lab.call("POST", path).by(&nobody).json("nonsense").send().await.check(400, invalid);
    let bogus = r#"{"error":["organization 'bogus' does not exist."]}"#;
    let body = r#"{"command":"x","nodes":["n"]}"#;
    lab.call("POST", path).by(&nobody).json(body).send().await.check(404, bogus);
    // Two things wrong with the headers: the first is told.
    let two =
        lab.call("GET", "~/jobs").by(admin).header("X-Ops-Timestamp", "x").without("X-Ops-Sign").send().await;
    two.check(400, &missing("'X-Ops-Sign'"));
    let two =
        lab.call("GET", "~/jobs").by(admin).seconds(3600).header("X-Ops-Sign", "version=9").send().await;
    two.check(401, CLOCK);
    // Slashes do not matter, neither to the route nor to the signature.
    lab.get(admin, "//organizations/acme//pushy/jobs/").await.check(200, "[]");
    lab.stop().await;
}
