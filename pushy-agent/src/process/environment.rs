//! The environment of a job (decision 19): little from the service, the user's own, the job's, and three names of ours.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use pushy_core::ids::{JobId, NodeName};

use super::os::JobUser;

/// `PATH` of a service that has none.
pub const DEFAULT_PATH: &str = "/opt/chef/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names that a job may not set unless `allowed_overwritable_env_vars` names them: they change which program runs. A
/// star stands for any ending.
pub const BLOCKED_NAMES: [&str; 11] = [
    "PATH",
    "IFS",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "LD_*",
    "RUBYOPT",
    "RUBYLIB",
    "GEM_*",
    "PERL5*",
    "PYTHON*",
];

/// Names every job inherits from the service.
const INHERITED: [&str; 12] = [
    "PATH",
    "LANG",
    "LC_*",
    "TZ",
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

fn listed(list: &[&str], name: &str) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == *entry,
    })
}

/// What an environment is made of.
pub(super) struct Parts<'a> {
    pub(super) service: Vec<(OsString, OsString)>,
    pub(super) passthrough: &'a [String],
    pub(super) user: &'a JobUser,
    pub(super) job: &'a [(String, String)],
    /// What the whitelist's entry sets, whatever the job says.
    pub(super) enforced: &'a [(String, String)],
    pub(super) overwritable: Option<&'a [String]>,
    pub(super) node: &'a NodeName,
    pub(super) id: &'a JobId,
    pub(super) file: Option<&'a Path>,
}

/// Whether every name and value can be in an environment at all.
pub(super) fn check(job: &[(String, String)]) -> Result<(), String> {
    for (name, value) in job {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{name:?} is not a name for an environment variable"));
        }
        if value.contains('\0') {
            return Err(format!("environment variable {name:?} contains a NUL"));
        }
    }
    Ok(())
}

/// The environment, and the names of the job's variables that were left out.
pub(super) fn build(parts: &Parts<'_>) -> (BTreeMap<OsString, OsString>, Vec<String>) {
    let mut environment = BTreeMap::new();
    let mut refused = Vec::new();
    environment.insert("PATH".into(), OsString::from(DEFAULT_PATH));
    for (name, value) in &parts.service {
        let inherited = name.to_str().is_some_and(|name| {
            listed(&INHERITED, name) || parts.passthrough.iter().any(|passed| passed == name)
        });
        if inherited && !(name == "PATH" && value.is_empty()) {
            environment.insert(name.clone(), value.clone());
        }
    }
    for (name, value) in parts.user.variables() {
        environment.insert(name.into(), value);
    }
    for (name, value) in parts.job {
        let name = match parts.overwritable {
            Some(allowed) if allowed.contains(name) => name.clone(),
            Some(_) => format!("CHEF_PUSH_ENV_{name}"),
            None if listed(&BLOCKED_NAMES, name) => {
                refused.push(name.clone());
                continue;
            }
            None => name.clone(),
        };
        environment.insert(name.into(), value.into());
    }
    for (name, value) in parts.enforced {
        environment.insert(name.into(), value.into());
    }
    let mut own = |name: &str, value: &OsStr| environment.insert(name.into(), value.into());
    own("CHEF_PUSH_NODE_NAME", parts.node.as_str().as_ref());
    own("CHEF_PUSH_JOB_ID", parts.id.as_str().as_ref());
    if let Some(file) = parts.file {
        own("CHEF_PUSH_JOB_FILE", file.as_os_str());
    }
    (environment, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "4be1d6f0a9c30123456789abcdef0123";

    fn check_build(
        service: &[(&str, &str)],
        passthrough: &[&str],
        job: &[(&str, &str)],
        overwritable: Option<&[&str]>,
        expected: &[(&str, Option<&str>)],
        expected_refused: &[&str],
    ) {
        let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let job: Vec<_> = job.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let overwritable = overwritable.map(owned);
        let (environment, refused) = build(&Parts {
            service: service.iter().map(|(n, v)| (n.into(), v.into())).collect(),
            passthrough: &owned(passthrough),
            user: &JobUser::find(None).expect("this user exists"),
            job: &job,
            enforced: &[("ENFORCED".into(), "yes".into())],
            overwritable: overwritable.as_deref(),
            node: &NodeName::new("web1").expect("a name"),
            id: &JobId::new(JOB).expect("an id"),
            file: None,
        });
        for (name, value) in expected {
            assert_eq!(
                environment.get(OsStr::new(name)).map(|v| v.to_str().expect("text")),
                *value,
                "{name}"
            );
        }
        assert_eq!(refused, expected_refused);
    }

    #[test]
    fn little_comes_from_the_service() {
        check_build(
            &[
                ("LANG", "C"),
                ("LC_ALL", "x"),
                ("SECRET", "s"),
                ("https_proxy", "p"),
                ("JAVA_HOME", "/j"),
                ("HOME", "/x"),
            ],
            &["JAVA_HOME"],
            &[],
            None,
            &[
                ("PATH", Some(DEFAULT_PATH)),
                ("LANG", Some("C")),
                ("LC_ALL", Some("x")),
                ("https_proxy", Some("p")),
                ("JAVA_HOME", Some("/j")),
                ("SECRET", None),
                ("CHEF_PUSH_NODE_NAME", Some("web1")),
                ("CHEF_PUSH_JOB_ID", Some(JOB)),
                ("CHEF_PUSH_JOB_FILE", None),
            ],
            &[],
        );
        check_build(&[("PATH", "/bin")], &[], &[], None, &[("PATH", Some("/bin"))], &[]);
    }

    #[test]
    fn the_jobs_own_variables_come_next_but_not_those_that_choose_programs() {
        check_build(
            &[],
            &[],
            &[
                ("STAGE", "prod"),
                ("ENFORCED", "no"),
                ("LANG", "de"),
                ("LD_PRELOAD", "x"),
                ("PATH", "/evil"),
                ("CHEF_PUSH_JOB_ID", "no"),
            ],
            None,
            &[
                ("STAGE", Some("prod")),
                ("ENFORCED", Some("yes")),
                ("LANG", Some("de")),
                ("LD_PRELOAD", None),
                ("PATH", Some(DEFAULT_PATH)),
                ("CHEF_PUSH_JOB_ID", Some(JOB)),
            ],
            &["LD_PRELOAD", "PATH"],
        );
    }

    #[test]
    fn a_list_of_overwritable_names_means_what_it_means_to_the_original() {
        check_build(
            &[],
            &[],
            &[("STAGE", "prod"), ("PATH", "/mine")],
            Some(&["PATH"]),
            &[("STAGE", None), ("CHEF_PUSH_ENV_STAGE", Some("prod")), ("PATH", Some("/mine"))],
            &[],
        );
    }

    #[test]
    fn what_no_environment_can_hold_is_refused() {
        for (name, value) in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0")] {
            assert!(check(&[(name.into(), value.into())]).is_err(), "{name:?} {value:?}");
        }
        assert_eq!(check(&[("A".into(), "b=c".into())]), Ok(()));
    }
}
