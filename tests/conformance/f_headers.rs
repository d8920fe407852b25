//! F. Authentication headers (2.6, 2.3, 3.1): every case against every listed resource.

use pushy_core::auth::Version;
use pushy_core::time::Wall;
use pushy_tests::http::wall;

use crate::call::{Actor, Call};
use crate::runner::checklist;
use crate::target::{Expect, Target};

checklist![
    Rest f1_everything_right,
    Rest f2_sign,
    Rest f3_user_id,
    Rest f4_timestamp_missing,
    Rest f5_timestamp_wrong,
    Rest f6_timestamp_a_little_old,
    Rest f7_content_hash_missing,
    Rest f8_content_hash_wrong,
    Rest f9_signature,
];

const BODY: &str = r#"{"command":"sleep 2","nodes":["DONKEY"]}"#;
const LINES: [&str; 6] = [
    "X-Ops-Authorization-1",
    "X-Ops-Authorization-2",
    "X-Ops-Authorization-3",
    "X-Ops-Authorization-4",
    "X-Ops-Authorization-5",
    "X-Ops-Authorization-6",
];

/// One of the listed resources.
struct Resource<'a> {
    target: &'a Target,
    method: &'static str,
    path: String,
    success: u16,
}

impl<'a> Resource<'a> {
    /// A request with everything right.
    fn call(&'a self) -> Call<'a> {
        let call = self.target.call(self.method, &self.path).by(self.target.admin());
        if self.method == "POST" { call.json(BODY) } else { call }
    }
}

/// Each of the listed resources in turn.
fn each(t: &Target, check: impl Fn(&Resource<'_>)) {
    let id = t.post(t.admin(), BODY).job_id();
    let ccpk = "ccpk=1234567890123456789012345678901234567890";
    for path in [&format!("config/DONKEY?{ccpk}"), &format!("jobs/{id}"), "node_states", "node_states/DONKEY"]
    {
        check(&Resource { target: t, method: "GET", path: path.to_owned(), success: 200 });
    }
    check(&Resource { target: t, method: "POST", path: "jobs".to_owned(), success: 201 });
}

fn missing(name: &str) -> String {
    format!("missing required authentication header(s) '{name}'")
}

fn f1_everything_right(t: &Target) {
    each(t, |r| {
        for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
            r.call().version(version).send().check_status(r.success);
        }
        let with_algorithm = r.call().header("X-Ops-Sign", "algorithm=sha1;version=1.1;").send();
        with_algorithm.check_status(r.success);
        let explicit =
            r.call().version(Version::V1_3).header("X-Ops-Sign", "algorithm=sha256;version=1.3").send();
        explicit.check_status(r.success);
    });
}

fn f2_sign(t: &Target) {
    each(t, |r| {
        r.call().without("X-Ops-Sign").send().check_error(400, &missing("X-Ops-Sign"));
        r.call().header("X-Ops-Sign", "").send().check_error(400, &missing("X-Ops-Sign"));
        for sign in ["version=8.1", "algorithm=sha1", "algorithm=sha256;version=1.1"] {
            let answer = r.call().header("X-Ops-Sign", sign).send();
            answer.check_error(400, "Unsupported authentication protocol version");
        }
    });
}

fn f3_user_id(t: &Target) {
    let nobody = Actor { name: t.invalid.name.clone(), ..t.admin().clone() };
    each(t, |r| {
        r.call().by(&nobody).send().check_unknown(&nobody);
        r.call().header("X-Ops-UserId", &nobody.name).send().check_unknown(&nobody);
        r.call().header("X-Ops-UserId", &t.normal().name).send().check_bad_signature(&t.normal().name);
        r.call().without("X-Ops-UserId").send().check_error(400, &missing("X-Ops-UserId"));
        r.call().header("X-Ops-UserId", "").send().check_error(400, &missing("X-Ops-UserId"));
    });
}

fn f4_timestamp_missing(t: &Target) {
    each(t, |r| {
        r.call().without("X-Ops-Timestamp").send().check_error(400, &missing("X-Ops-Timestamp"));
        r.call().header("X-Ops-Timestamp", "").send().check_error(400, &missing("X-Ops-Timestamp"));
    });
}

fn f5_timestamp_wrong(t: &Target) {
    let admin = &t.admin().name;
    let clock = format!("Failed to authenticate as {admin}. Synchronize the clock on your host.");
    each(t, |r| {
        let garbage = r.call().header("X-Ops-Timestamp", "foo!@#!@#").send();
        garbage.check_error(401, "bad header(s) 'X-Ops-Timestamp'");
        assert_eq!(garbage.header("www-authenticate"), None);
        for seconds in [-3600, 3600] {
            let answer = r.call().seconds(seconds).send();
            answer.check_error(401, &clock);
            assert_eq!(answer.header("www-authenticate"), None);
        }
        let altered = Wall(wall().0 - 5_000_000).iso8601();
        r.call().header("X-Ops-Timestamp", &altered).send().check_bad_signature(admin);
    });
}

fn f6_timestamp_a_little_old(t: &Target) {
    each(t, |r| r.call().seconds(-30).send().check_status(r.success));
}

fn f7_content_hash_missing(t: &Target) {
    each(t, |r| {
        r.call().without("X-Ops-Content-Hash").send().check_error(400, &missing("X-Ops-Content-Hash"));
        r.call().header("X-Ops-Content-Hash", "").send().check_error(400, &missing("X-Ops-Content-Hash"));
    });
}

fn f8_content_hash_wrong(t: &Target) {
    let admin = &t.admin().name;
    each(t, |r| {
        // Garbage, and the hash of "xyz" in both lengths.
        let hashes =
            ["foo!@#", "ZrJ0eatU3ISz+Wci7nMeGWACY48=", "NgjNf7nsWUvpU9iIWjqbcH2nl6NmGWtmZYYxnDU3aTE="];
        for hash in hashes {
            for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
                let answer = r.call().version(version).header("X-Ops-Content-Hash", hash).send();
                // The original does not look at this header in 1.3 (3.1); ours does (decision 17).
                if version == Version::V1_3 && t.expect == Expect::Original {
                    answer.check_status(r.success);
                } else {
                    answer.check_bad_signature(admin);
                }
            }
        }
        for version in [Version::V1_0, Version::V1_1, Version::V1_3] {
            r.call().version(version).sign_body("another body").send().check_bad_signature(admin);
        }
    });
}

fn f9_signature(t: &Target) {
    let admin = &t.admin().name;
    each(t, |r| {
        let all = |value: Option<&str>| {
            LINES.iter().fold(r.call(), |call, line| match value {
                Some(value) => call.header(line, value),
                None => call.without(line),
            })
        };
        all(None).send().check_bad_signature(admin);
        all(Some("")).send().check_bad_signature(admin);
        all(Some("foo!@#!@#")).send().check_bad_signature(admin);
        for line in [LINES[0], LINES[2], LINES[5]] {
            r.call().without(line).send().check_bad_signature(admin);
            r.call().header(line, "").send().check_bad_signature(admin);
            r.call().header(line, "foo!@#!@#").send().check_bad_signature(admin);
        }
        let method = if r.method == "GET" { "POST" } else { "GET" };
        r.call().sign_method(method).send().check_bad_signature(admin);
        r.call().sign_path(&t.path("other")).send().check_bad_signature(admin);
        r.call().sign_body("another body").send().check_bad_signature(admin);
    });
}
