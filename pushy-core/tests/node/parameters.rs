//! Parameters of a commit: in the command before the vote, or refused with parameter and rule.

use pushy_core::job::JobOptions;
use pushy_core::node::{Input, Output};
use pushy_core::ruby_config;
use pushy_core::whitelist::{CommandLine, Matching, Whitelist};

use super::lab::*;

const WHITELIST: &[u8] = b"whitelist({ 'plain' => 'true', 'deploy' => { command_line: ['d', '-n{n}', '{s}'],
  parameters: { n: { type: 'integer' }, s: { choices: ['a', 'b'], default: 'b' } } } })";

/// What a node does with a commit.
fn commit(command: &str, given: &[(&str, &str)]) -> (Lab, Vec<Output>) {
    let settings = ruby_config::read("/etc/w.rb", WHITELIST, &|_| None).expect("readable");
    let whitelist = settings.get("whitelist").expect("a whitelist");
    let whitelist = Whitelist::from_value(whitelist, Matching::Whole).expect("usable");
    let mut lab = Lab::online();
    lab.handle(Input::Reload(Box::new(whitelist)));
    let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let parameters = Some(given).filter(|given| !given.is_empty());
    let outputs = lab.commit(command, JobOptions { parameters, ..JobOptions::default() });
    (lab, outputs)
}

#[test]
fn they_are_filled_in_before_the_vote() {
    let check = |given: &[(&str, &str)], expected: &[&str]| {
        let (_, outputs) = commit("deploy", given);
        let prepared = outputs.iter().find_map(|output| match output {
            Output::Prepare { spec, .. } => Some(&spec.allowed.command),
            _ => None,
        });
        let expected: Vec<String> = expected.iter().map(|word| (*word).to_owned()).collect();
        assert_eq!(prepared, Some(&CommandLine::Args(expected)), "{given:?}");
    };
    check(&[("n", "3")], &["d", "-n3", "b"]);
    check(&[("s", "a"), ("n", "-1")], &["d", "-n-1", "a"]);
}

#[test]
fn a_refusal_names_parameter_and_rule_and_no_value() {
    let check = |command: &str, given: &[(&str, &str)], expected: &str| {
        let (lab, outputs) = commit(command, given);
        assert_eq!(lab.types(&outputs), ["nack_commit"], "{given:?}");
        let text = &lab.said(&outputs)[0].1;
        let reason = format!(
            r#""reason":{{"code":"bad_parameters","text":"whitelist entry \"{command}\": {expected}"}}}}"#
        );
        assert!(text.ends_with(&reason), "{text}\nlacks: {reason}");
        assert!(
            outputs
                .iter()
                .all(|output| !matches!(output, Output::Log { text, .. } if text.contains("secret")))
        );
    };
    check("deploy", &[], "parameter n is missing; it must be a whole number");
    check("deploy", &[("n", "secret")], "parameter n must be a whole number");
    check("deploy", &[("n", "1"), ("s", "secret")], "parameter s must be one of a, b");
    check("deploy", &[("n", "1"), ("more", "secret")], "there is no parameter more; the command takes n, s");
    check("plain", &[("n", "1")], "the whitelist's entry takes no parameters");
}
