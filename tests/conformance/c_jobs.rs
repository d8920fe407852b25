//! C. Jobs, verbs and access (2.6, 3.3).

use serde_json::json;

use crate::people::Member;
use crate::runner::checklist;
use crate::target::{Expect, Role, Target};

checklist![
    Rest c1_verbs_of_the_list,
    Rest c2_verbs_of_a_job,
    Rest c3_no_such_name,
    Rest c4_reading_without_groups,
    Rest c5_starting_without_groups,
    Rest c6_strangers,
    Groups c7_groups,
    Groups c8_nested_groups,
    Rest c9_bogus_organization,
    Rest c10_no_such_id,
];

const BODY: &str = r#"{"command":"sleep 2","nodes":["DONKEY"]}"#;
const NO_ID: &str = "0123456789abcdef0123456789abcdef";

fn c1_verbs_of_the_list(t: &Target) {
    for method in ["PUT", "DELETE"] {
        t.call(method, "jobs/").send().check_not_allowed("POST, GET");
    }
}

fn c2_verbs_of_a_job(t: &Target) {
    let id = t.post(t.admin(), BODY).job_id();
    for path in [format!("jobs/{id}"), format!("jobs/{NO_ID}")] {
        for method in ["PUT", "POST", "DELETE"] {
            t.call(method, &path).send().check_not_allowed("GET");
        }
    }
}

fn c3_no_such_name(t: &Target) {
    t.get(t.admin(), "jobs/name-does-not-exist").check_framework(404);
}

fn c4_reading_without_groups(t: &Target) {
    let id = t.post(t.admin(), BODY).job_id();
    for actor in [t.admin(), t.normal(), t.client()] {
        let list = t.get(actor, "jobs/").json();
        assert!(list.as_array().expect("an array").iter().any(|job| job["id"] == *id), "{list}");
        assert_eq!(t.get(actor, &format!("jobs/{id}")).json()["id"], *id);
    }
}

fn c5_starting_without_groups(t: &Target) {
    t.post(t.admin(), BODY).check_status(201);
    t.post(t.normal(), BODY).check_no_access(t.normal());
    t.post(t.client(), BODY).check_no_access(t.client());
}

fn c6_strangers(t: &Target) {
    let id = t.post(t.admin(), BODY).job_id();
    for path in ["jobs", &format!("jobs/{id}")] {
        t.get(&t.invalid, path).check_unknown(&t.invalid);
        t.get(&t.bogus, path).check_bad_signature(&t.bogus.name);
        t.get(t.outside(), path).check_not_associated(t.outside());
    }
    t.post(&t.invalid, BODY).check_unknown(&t.invalid);
    t.post(&t.bogus, BODY).check_bad_signature(&t.bogus.name);
    t.post(t.outside(), BODY).check_not_associated(t.outside());
}

const MEMBERS: &[Member] = &[Member::Is(Role::Normal), Member::Is(Role::Client), Member::Is(Role::Outside)];

/// Both groups have the normal user and the client that is no administrator; the outside user is listed where the
/// directory can list somebody from outside.
fn members_only(t: &Target) {
    let mut ids = Vec::new();
    for actor in [t.normal(), t.client()] {
        let id = t.post(actor, BODY).job_id();
        t.get(actor, "jobs").check_status(200);
        t.get(actor, &format!("jobs/{id}")).check_status(200);
        ids.push(id);
    }
    for actor in [t.admin(), t.role(Role::AdminClient)] {
        t.post(actor, BODY).check_no_access(actor);
        t.get(actor, "jobs").check_no_access(actor);
        t.get(actor, &format!("jobs/{}", ids[0])).check_no_access(actor);
    }
    t.post(t.outside(), BODY).check_not_associated(t.outside());
    t.get(t.outside(), "jobs").check_not_associated(t.outside());
    t.get(t.outside(), &format!("jobs/{}", ids[0])).check_not_associated(t.outside());
}

fn c7_groups(t: &Target) {
    members_only(&t.with_groups(&[("pushy_job_readers", MEMBERS), ("pushy_job_writers", MEMBERS)]));
}

fn c8_nested_groups(t: &Target) {
    let outer = &[Member::Group("middle")];
    members_only(&t.with_groups(&[
        ("inner", MEMBERS),
        ("middle", &[Member::Group("inner")]),
        ("pushy_job_readers", outer),
        ("pushy_job_writers", outer),
    ]));
}

fn c9_bogus_organization(t: &Target) {
    let text = "organization 'bogus' does not exist.";
    for path in ["jobs", &format!("jobs/{NO_ID}")] {
        t.get(t.admin(), &format!("/organizations/bogus/pushy/{path}")).check_error(404, text);
    }
    let post = t.call("POST", "/organizations/bogus/pushy/jobs").by(t.admin()).json(BODY).send();
    post.check_error(404, text);
}

fn c10_no_such_id(t: &Target) {
    t.get(t.admin(), &format!("jobs/{NO_ID}")).check_framework(404);
    let id = t.post(t.admin(), BODY).job_id();
    let upper = id.to_uppercase();
    if upper != id {
        t.get(t.admin(), &format!("jobs/{upper}")).check_framework(404);
    }
    for channel in ["stdout", "stderr"] {
        t.get(t.admin(), &format!("jobs/{id}/output/DONKEY/{channel}")).check_framework(404);
    }
    t.get(t.admin(), &format!("jobs/{id}/output/DONKEY/stdin")).check_framework(404);
    if let Some(site) = t.known_site().filter(|_| t.expect == Expect::Ours) {
        // Another organization's job is not there (D-06).
        let other = Target::new(site, &[]);
        other.get(other.admin(), &format!("jobs/{id}")).check_framework(404);
        assert_eq!(other.get(other.admin(), "jobs").json(), json!([]));
    }
}
