//! E. Node states (2.6, 2.4.7, 2.4.8).

use crate::people::Member;
use crate::runner::checklist;
use crate::target::{Role, Target};

checklist![
    Rest e1_verbs,
    Rest e2_without_groups,
    Rest e3_strangers,
    Groups e4_readers_group,
    Rest e5_bogus_organization,
];

const PATHS: [&str; 2] = ["node_states/", "node_states/DONKEY"];

fn e1_verbs(t: &Target) {
    for path in PATHS {
        for method in ["PUT", "POST", "DELETE"] {
            t.call(method, path).send().check_not_allowed("GET");
        }
    }
}

fn e2_without_groups(t: &Target) {
    for actor in [t.admin(), t.normal(), t.client()] {
        assert!(t.get(actor, "node_states/").json().is_array());
        let unknown = r#"{"node_name":"no.such","status":"offline","availability":"unavailable"}"#;
        t.get(actor, "node_states/no.such").check(200, unknown);
    }
}

fn e3_strangers(t: &Target) {
    for path in PATHS {
        t.get(&t.invalid, path).check_unknown(&t.invalid);
        t.get(&t.bogus, path).check_bad_signature(&t.bogus.name);
        t.get(t.outside(), path).check_not_associated(t.outside());
    }
}

fn e4_readers_group(t: &Target) {
    let nested: &[(&str, &[Member])] = &[
        ("inner", &[Member::Is(Role::Normal), Member::Is(Role::Client)]),
        ("pushy_job_readers", &[Member::Group("inner")]),
    ];
    let flat: &[(&str, &[Member])] =
        &[("pushy_job_readers", &[Member::Is(Role::Normal), Member::Is(Role::Client)])];
    for groups in [flat, nested] {
        let t = t.with_groups(groups);
        for path in PATHS {
            for member in [t.normal(), t.client()] {
                t.get(member, path).check_status(200);
            }
            for other in [t.admin(), t.role(Role::AdminClient)] {
                t.get(other, path).check_no_access(other);
            }
            t.get(t.outside(), path).check_not_associated(t.outside());
        }
    }
}

fn e5_bogus_organization(t: &Target) {
    for path in PATHS {
        let answer = t.get(t.admin(), &format!("/organizations/bogus/pushy/{path}"));
        answer.check_error(404, "organization 'bogus' does not exist.");
    }
}
