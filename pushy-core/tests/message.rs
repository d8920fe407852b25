//! The examples of the specification's section 12, both ways, and the lenient reading of 4.8 and 4.10.

use pushy_core::ids::{IncarnationId, JobId, NodeName, OrgName};
use pushy_core::job::JobOptions;
use pushy_core::message::{
    Caps, Captured, Commit, DecodeError, FromNode, FromServer, JobRef, JobState, NodeIdentity, NodeMessage,
    ServerMessage,
};
use pushy_core::output::{Chunk, OutputChannel, Wanted};
use pushy_core::reason::{Reason, ReasonCode};
use pushy_core::time::Wall;
use pushy_core::wire::{Limits, SessionKey, WireError, hmac_header, open_from_node};

const NOW: Wall = Wall::from_secs(1_741_083_300);
const JOB: &str = "4be1d6f0a9c30123456789abcdef0123";

fn key() -> SessionKey {
    SessionKey(std::array::from_fn(|i| i as u8))
}

fn sender() -> NodeIdentity {
    NodeIdentity {
        node: NodeName::new("web-01.example.com").unwrap(),
        client: "web-01".into(),
        org: OrgName::new("acme").unwrap(),
        incarnation: IncarnationId::new("5f0c2c1e-7b3a-4d0e-9a61-2f6a0c9d4e11").unwrap(),
    }
}

fn job() -> JobId {
    JobId::new(JOB).unwrap()
}

/// Encodes, compares signature and members with the original's, and reads it back.
fn check_node(message: NodeMessage, sequence: u64, rest: &str, signature: &str) {
    let body = message.encode(&sender(), sequence, NOW);
    let (kind, tail) = rest.split_once('|').unwrap();
    let expected = format!(
        r#"{{"node":"web-01.example.com","client":"web-01","protocol_version":"2.0","org":"acme","type":"{kind}","sequence":{sequence},"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","incarnation_id":"5f0c2c1e-7b3a-4d0e-9a61-2f6a0c9d4e11",{tail}}}"#
    );
    assert_eq!(String::from_utf8_lossy(&body), expected);
    let header = hmac_header(&key().0, &body);
    assert_eq!(
        String::from_utf8_lossy(&header),
        format!("Version:2.0;SigningMethod:hmac_sha256;Signature:{signature}")
    );
    let limits = Limits { max_body: 65_536, max_skew: 300 };
    let read = open_from_node(&key(), limits, NOW, &header, &body).unwrap();
    assert_eq!((&*read.node, &*read.org), ("web-01.example.com", "acme"));
    assert_eq!((read.sequence, read.timestamp), (Some(sequence), NOW));
    assert_eq!(read.incarnation, Some(sender().incarnation));
    assert_eq!(read.message, message);
}

#[test]
fn node_messages_of_section_12() {
    let beat = |state, job: JobRef| NodeMessage::Heartbeat { state: Some(state), job, caps: None };
    let id = || JobRef::Id(job());
    let with_job = format!(r#""job_id":"{JOB}""#);
    check_node(
        beat(JobState::Idle, JobRef::None),
        1,
        r#"heartbeat|"job_state":"idle","job_id":null"#,
        "grUy8/Z5h3KjkdCo07wB4cjUb89QsqvYu1j912beJY0=",
    );
    check_node(
        NodeMessage::Aborted { job: JobRef::None, reason: None },
        2,
        r#"aborted|"job_id":null"#,
        "au2/W9fKy/3sEXEo9y/XaourJPXMRoAiRp0dF0lDXno=",
    );
    check_node(
        NodeMessage::AckCommit { job: id() },
        3,
        &format!("ack_commit|{with_job}"),
        "y+5zcZCCfb3fX64xq2srGp6GO5Tlgsi1C8DhAKfjhSo=",
    );
    check_node(
        NodeMessage::NackCommit { job: id(), reason: None },
        3,
        &format!("nack_commit|{with_job}"),
        "5emE5j8+K8q7yfBpsUrwdlzS2sqM7slDTmwusnA7RKI=",
    );
    check_node(
        NodeMessage::AckRun { job: id() },
        4,
        &format!("ack_run|{with_job}"),
        "T1O9zuV2UT/iEvDm5+QlYV948hvmgVxFtfL837gnve8=",
    );
    check_node(
        beat(JobState::Running, id()),
        7,
        &format!(r#"heartbeat|"job_state":"running",{with_job}"#),
        "qXiS8WVmg+uSVmhP/fbwreaUU+vQ2YhfVChu7PkzWjQ=",
    );
    check_node(
        NodeMessage::Succeeded {
            job: id(),
            output: Captured { stdout: Some("testout\n".into()), stderr: Some(String::new()) },
        },
        9,
        &format!(r#"succeeded|{with_job},"stdout":"testout\n","stderr":"""#),
        "UdKSIlmv6HL8p13w4Ds7ipwERHsonq4fHiX74rk/B80=",
    );
}

fn check_server(message: ServerMessage, sequence: u64, rest: &str, signature: &str) {
    let body = message.encode(sequence, NOW);
    let expected = format!(r#"{{"sequence":{sequence},"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT",{rest}}}"#);
    assert_eq!(String::from_utf8_lossy(&body), expected);
    let header = hmac_header(&key().0, &body);
    assert!(String::from_utf8_lossy(&header).ends_with(&format!("Signature:{signature}")), "{expected}");
    assert_eq!(
        FromServer::decode(&body),
        Ok(FromServer { sequence: Some(sequence), timestamp: NOW, message })
    );
}

fn full_commit() -> Commit {
    Commit {
        job: job(),
        server: "push.example.com".into(),
        command: "restart nginx".into(),
        options: JobOptions {
            user: Some("deploy".into()),
            dir: Some("/srv/app".into()),
            env: Some(vec![("STAGE".into(), "prod".into())]),
            file: Some("base64:aGVsbG8K".into()),
            capture: true,
            parameters: None,
        },
        run_timeout: None,
    }
}

#[test]
fn server_messages_of_section_12() {
    check_server(
        ServerMessage::Abort,
        1,
        r#""type":"abort""#,
        "QDeqP8liie4ZdNLXc5AvAs9h+jCrxHfuYklE0dBz+iU=",
    );
    check_server(ServerMessage::Ack, 42, r#""type":"ack""#, "tGqq0SuhabGs9os2lwhSCJHYJesK70/MUwplXtmAOlI=");
    check_server(
        ServerMessage::Commit(Box::new(full_commit())),
        12,
        r#""type":"commit","job_id":"4be1d6f0a9c30123456789abcdef0123","server":"push.example.com","command":"restart nginx","user":"deploy","dir":"/srv/app","env":{"STAGE":"prod"},"file":"base64:aGVsbG8K","capture":true"#,
        "SW5zv1Kblspv9lAlxcyhAFVARe58/AN4xau5BSjSFsY=",
    );
    check_server(
        ServerMessage::Run { job: job() },
        13,
        r#""type":"run","job_id":"4be1d6f0a9c30123456789abcdef0123""#,
        "8i+y06vMPZUcQvmMExP2HysSCVw5Mdg7ZQ72wAdC0QM=",
    );
    let beat = ServerMessage::Heartbeat {
        server: "push01".into(),
        incarnation: Some(IncarnationId::new("0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40").unwrap()),
    };
    let body = r#"{"sequence":0,"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","server":"push01","type":"heartbeat","incarnation_id":"0d6b7a52-3c4e-4f0f-8a1b-9e2d7c6b5a40"}"#;
    assert_eq!(String::from_utf8(beat.encode(0, NOW)).unwrap(), body);
    assert_eq!(FromServer::decode(body.as_bytes()).unwrap().message, beat);
    let ack = ServerMessage::ResultAck { job: job() };
    assert_eq!(FromServer::decode(&ack.encode(1, NOW)).unwrap().message, ack);
}

#[test]
fn caps_are_the_last_member_of_a_heartbeat() {
    let beat =
        NodeMessage::Heartbeat { state: Some(JobState::Idle), job: JobRef::None, caps: Some(Caps::RESULTS) };
    let body = beat.encode(&sender(), 1, NOW);
    assert!(String::from_utf8_lossy(&body).ends_with(r#""job_id":null,"caps":["results"]}"#));
    assert_eq!(FromNode::decode(&body).unwrap().message, beat);
}

/// Reads a heartbeat whose `job_id` is given as JSON, or missing.
fn check_job_ref(job_id: Option<&str>, expected: JobRef) {
    let member = job_id.map_or(String::new(), |j| format!(r#","job_id":{j}"#));
    let body = format!(
        r#"{{"node":"n","org":"o","type":"heartbeat","timestamp":"Tue, 04 Mar 2025 10:15:00 GMT"{member}}}"#
    );
    let read = FromNode::decode(body.as_bytes()).unwrap();
    assert_eq!(read.message.job(), &expected, "{job_id:?}");
    assert_eq!((read.incarnation, read.sequence), (None, None));
}

#[test]
fn job_ids_as_the_server_understands_them() {
    let other = |text: &str| JobRef::Other(text.into());
    let long = "x".repeat(65);
    for (job_id, expected) in [
        (Some("null"), JobRef::None),
        (Some(r#""null""#), JobRef::None),
        (Some(r#""4be1d6f0a9c30123456789abcdef0123""#), JobRef::Id(job())),
        (Some(r#""4BE1D6F0A9C30123456789ABCDEF0123""#), other("4BE1D6F0A9C30123456789ABCDEF0123")),
        (Some(r#""""#), other("")),
        (Some(&format!("\"{}\"", &long[1..])), other(&long[1..])),
        (Some(&format!("\"{long}\"")), other("")),
        (Some("17"), other("")),
        (Some("true"), other("")),
        (Some("[]"), other("")),
        (Some(r#"{"a":1}"#), other("")),
        (None, other("")),
    ] {
        check_job_ref(job_id, expected);
    }
}

#[test]
fn node_bodies_that_are_dropped_or_bent() {
    let at = r#""timestamp":"Tue, 04 Mar 2025 10:15:00 GMT""#;
    let decode = |text: &str| FromNode::decode(text.to_owned().leak().as_bytes());
    for (body, error) in [
        ("", DecodeError::NotAnObject),
        ("[]", DecodeError::NotAnObject),
        ("{} x", DecodeError::NotAnObject),
        (r#"{"node":"\ud800"}"#, DecodeError::NotAnObject),
        ("{}", DecodeError::Missing("node")),
        (r#"{"node":1,"org":"o"}"#, DecodeError::Missing("node")),
        (r#"{"node":"n"}"#, DecodeError::Missing("org")),
        (r#"{"node":"n","org":"o"}"#, DecodeError::Timestamp),
        (r#"{"node":"n","org":"o","timestamp":""}"#, DecodeError::Timestamp),
        (r#"{"node":"n","org":"o","timestamp":"2025-03-04T10:15:00Z"}"#, DecodeError::Timestamp),
        (r#"{"node":"n","org":"o","timestamp":5}"#, DecodeError::Timestamp),
    ] {
        assert_eq!(decode(body).unwrap_err(), error, "{body}");
    }
    assert_eq!(FromNode::decode(b"{\"node\":\"\xff\"}").unwrap_err(), DecodeError::NotAnObject);

    let bent = |members: &str| decode(&format!(r#"{{"node":"n","org":"o",{at}{members}}}"#)).unwrap();
    let unknown = |name: &str| NodeMessage::Unknown { name: name.into() };
    assert_eq!(bent("").message, unknown(""));
    assert_eq!(bent(r#","type":7"#).message, unknown(""));
    assert_eq!(bent(r#","type":"dance""#).message, unknown("dance"));
    assert_eq!(bent(r#","sequence":-1"#).sequence, None);
    assert_eq!(bent(r#","sequence":1.5"#).sequence, None);
    assert_eq!(bent(r#","incarnation_id":{}"#).incarnation, None);
    let first = bent(r#","node":"m","type":"aborted","type":"heartbeat","job_id":null"#);
    assert_eq!((&*first.node, first.message.type_name()), ("n", "aborted"));
    let escaped =
        decode(&format!(r#"{{"\u006eode":"w\u00e9b","org":"o",{at},"type":"aborted","job_id":null}}"#))
            .unwrap();
    assert_eq!(&*escaped.node, "wéb");
    let caps = bent(
        r#","type":"heartbeat","job_id":null,"job_state":"asleep","caps":["x",1,null,["results"],"results"]"#,
    );
    assert_eq!(
        caps.message,
        NodeMessage::Heartbeat { state: None, job: JobRef::None, caps: Some(Caps::RESULTS) }
    );
    let failed = bent(r#","type":"failed","job_id":"null","stdout":"a\u0000b","stderr":5"#);
    assert_eq!(
        failed.message,
        NodeMessage::Failed {
            job: JobRef::None,
            output: Captured { stdout: Some("a\0b".into()), stderr: None },
            reason: None
        }
    );
}

#[test]
fn reasons() {
    let at = r#""timestamp":"Tue, 04 Mar 2025 10:15:00 GMT""#;
    let check = |members: &str, expected: Option<Reason>| {
        let body = format!(r#"{{"node":"n","org":"o",{at},"job_id":null,{members}}}"#);
        let said = FromNode::decode(body.as_bytes()).unwrap().message;
        assert_eq!(said.reason(), expected.as_ref(), "{members}");
        assert_eq!(said.without_reason().reason(), None);
    };
    let busy = || Some(Reason::new(ReasonCode::Busy, "busy with job 1"));
    let object = r#"{"code":"busy","text":"busy with job 1"}"#;
    for kind in ["nack_commit", "nack_run", "failed", "aborted"] {
        check(&format!(r#""type":"{kind}","reason":{object}"#), busy());
        check(&format!(r#""type":"{kind}""#), None);
    }
    check(&format!(r#""type":"ack_commit","reason":{object}"#), None);
    let nack = |reason: &str| format!(r#""type":"nack_commit","reason":{reason}"#);
    check(&nack(r#"{"text":"busy with job 1","more":{"code":[]},"code":"busy","code":"exit"}"#), busy());
    check(&nack(r#"{"code":"busy"}"#), Some(Reason::new(ReasonCode::Busy, "")));
    check(&nack(r#"{"code":"new","text":"t"}"#), Some(Reason::new(ReasonCode::Other, "t")));
    for none in [r#"{"text":"t"}"#, r#"{"code":1}"#, "null", "\"busy\"", r#"["busy"]"#, "{}"] {
        check(&nack(none), None);
    }
    let message = NodeMessage::NackRun { job: JobRef::Id(job()), reason: busy() };
    let body = message.encode(&sender(), 1, NOW);
    assert!(
        String::from_utf8_lossy(&body).ends_with(&format!(r#","job_id":"{JOB}","reason":{object}}}"#)),
        "{}",
        String::from_utf8_lossy(&body)
    );
}

#[test]
fn extensions_of_the_server() {
    let cancel = ServerMessage::Cancel { job: job() };
    let tail = format!(r#""type":"cancel","job_id":"{JOB}""#);
    assert!(String::from_utf8_lossy(&cancel.encode(1, NOW)).ends_with(&format!(",{tail}}}")));
    check_reading(&tail, cancel);
    check_reading(r#""type":"cancel""#, ServerMessage::Unknown { name: "cancel".into() });
    let extended = |seconds, pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        ServerMessage::Commit(Box::new(Commit {
            job: job(),
            server: "s".into(),
            command: "c".into(),
            options: JobOptions { parameters: Some(pairs), ..JobOptions::default() },
            run_timeout: Some(seconds),
        }))
    };
    let written = extended(60, &[("version", "1.2")]);
    let end = r#","capture":false,"run_timeout":60,"parameters":{"version":"1.2"}}"#;
    let body = written.encode(1, NOW);
    assert!(String::from_utf8_lossy(&body).ends_with(end), "{}", String::from_utf8_lossy(&body));
    assert_eq!(FromServer::decode(&body).unwrap().message, written);
    let commit = format!(r#""type":"commit","job_id":"{JOB}","command":"c""#);
    check_reading(
        &format!(r#"{commit},"parameters":{{"a":1}}"#),
        ServerMessage::BadCommit { job: JobRef::Id(job()) },
    );
}

/// Reads a server message with these members after the timestamp.
fn check_reading(members: &str, expected: ServerMessage) {
    let body = format!(r#"{{"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT",{members}}}"#);
    assert_eq!(FromServer::decode(body.as_bytes()).unwrap().message, expected, "{members}");
}

#[test]
fn server_messages_read_as_the_node_does() {
    let bare = |options| {
        ServerMessage::Commit(Box::new(Commit {
            job: job(),
            server: String::new(),
            command: "c".into(),
            options,
            run_timeout: None,
        }))
    };
    let commit = |rest: &str| format!(r#""type":"commit","job_id":"{JOB}","command":"c"{rest}"#);
    check_reading(&commit(""), bare(JobOptions::default()));
    check_reading(
        &commit(r#","user":null,"dir":false,"env":null,"file":false,"capture":null,"new":1"#),
        bare(JobOptions::default()),
    );
    check_reading(&commit(r#","capture":1"#), bare(JobOptions { capture: true, ..Default::default() }));
    check_reading(&commit(r#","env":{}"#), bare(JobOptions { env: Some(vec![]), ..Default::default() }));
    for bad in [r#","user":1"#, r#","dir":[]"#, r#","env":{"A":1}"#, r#","env":"A=1""#, r#","file":true"#] {
        check_reading(&commit(bad), ServerMessage::BadCommit { job: JobRef::Id(job()) });
    }
    for bad in [r#""type":"commit","command":"c""#, &format!(r#""type":"commit","job_id":"{JOB}""#)] {
        check_reading(bad, ServerMessage::BadCommit { job: JobRef::None });
    }
    check_reading(r#""type":"run""#, ServerMessage::BadRun);
    check_reading(r#""type":"run","job_id":null"#, ServerMessage::BadRun);
    check_reading(
        r#""type":"heartbeat""#,
        ServerMessage::Heartbeat { server: String::new(), incarnation: None },
    );
    check_reading(r#""type":"dance""#, ServerMessage::Unknown { name: "dance".into() });
    check_reading(r#""kind":"abort""#, ServerMessage::Unknown { name: "".into() });
    for (body, error) in [
        (&b"nonsense"[..], DecodeError::NotAnObject),
        (b"[]", DecodeError::NotAnObject),
        (br#"{"type":"abort"}"#, DecodeError::Timestamp),
        (br#"{"type":"abort","timestamp":"soon"}"#, DecodeError::Timestamp),
    ] {
        assert_eq!(FromServer::decode(body).unwrap_err(), error);
    }
}

#[test]
fn the_window_of_the_server_is_open_at_both_ends() {
    let limits = Limits { max_body: 1000, max_skew: 300 };
    let body = NodeMessage::Aborted { job: JobRef::None, reason: None }.encode(&sender(), 1, NOW);
    let header = hmac_header(&key().0, &body);
    let at = |secs: i64| {
        open_from_node(&key(), limits, Wall::from_secs(NOW.secs() + secs), &header, &body)
            .map(|m| m.timestamp)
    };
    for (secs, expected) in
        [(0, None), (299, None), (-299, None), (300, Some(300)), (-300, Some(-300)), (4000, Some(4000))]
    {
        assert_eq!(at(secs).err(), expected.map(WireError::Skew), "{secs}");
    }
}

#[test]
fn debug_shows_no_secrets() {
    let commit = format!("{:?}", full_commit());
    assert!(!commit.contains("prod") && !commit.contains("aGVsbG8K"), "{commit}");
    let output = Captured { stdout: Some("password".into()), stderr: None };
    assert!(!format!("{output:?}").contains("password"));
    assert!(!format!("{:?}", key()).contains('1'));
}

#[test]
fn output_is_asked_for_and_comes() {
    let wanted =
        Wanted { job: job(), channel: OutputChannel::Both, offset: 1 << 40, max: 46_080, wait: 20_000 };
    let request = ServerMessage::OutputRequest(wanted);
    let body = request.encode(7, NOW);
    let rest = format!(
        r#""type":"output_request","job_id":"{JOB}","channel":"both","offset":1099511627776,"max":46080,"wait":20000}}"#
    );
    assert!(String::from_utf8_lossy(&body).ends_with(&rest), "{}", String::from_utf8_lossy(&body));
    assert_eq!(FromServer::decode(&body).unwrap().message, request);

    let chunk = |lost: u64, missing: bool, data: &[u8]| Chunk {
        job: job(),
        channel: OutputChannel::Stderr,
        offset: 3,
        total: 3 + data.len() as u64,
        done: !missing,
        lost,
        missing,
        data: data.to_vec(),
    };
    let check = |chunk: Chunk, tail: &str| {
        let message = NodeMessage::OutputChunk(Box::new(chunk));
        let body = message.encode(&sender(), 9, NOW);
        let text = String::from_utf8_lossy(&body);
        assert!(text.contains(r#""type":"output_chunk""#) && text.ends_with(tail), "{text}");
        assert_eq!(FromNode::decode(&body).unwrap().message, message);
    };
    let start = format!(r#""job_id":"{JOB}","channel":"stderr","offset":3,"#);
    check(chunk(0, false, b"\xff\0"), &format!(r#"{start}"total":5,"done":true,"data":"/wA="}}"#));
    check(
        chunk(8, true, b""),
        &format!(r#"{start}"total":3,"done":false,"lost":8,"missing":true,"data":""}}"#),
    );
}

#[test]
fn output_that_cannot_be_meant_is_passed_over() {
    let node = |members: &str| {
        let body = format!(
            r#"{{"node":"a","org":"b","timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","type":"output_chunk",{members}}}"#
        );
        FromNode::decode(body.as_bytes()).unwrap().message
    };
    let unknown = NodeMessage::Unknown { name: "output_chunk".into() };
    let large = "QUFB".repeat(16_385);
    for members in [
        r#""job_id":null,"channel":"stdout","offset":0,"total":1,"data":"QQ==""#.to_owned(),
        format!(r#""job_id":"{JOB}","channel":"stdin","offset":0,"total":1,"data":"QQ==""#),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":-1,"total":1,"data":"QQ==""#),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":0,"total":1,"data":"Q""#),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":0,"total":1,"data":7"#),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":1,"total":1,"data":"QQ==""#),
        format!(
            r#""job_id":"{JOB}","channel":"stdout","offset":18446744073709551615,"total":1,"data":"QQ==""#
        ),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":0,"total":99999,"data":"{large}""#),
    ] {
        assert_eq!(node(&members), unknown, "{}", &members[..80.min(members.len())]);
    }
    let server = |members: &str| {
        let body =
            format!(r#"{{"timestamp":"Tue, 04 Mar 2025 10:15:00 GMT","type":"output_request",{members}}}"#);
        FromServer::decode(body.as_bytes()).unwrap().message
    };
    for members in [
        r#""job_id":"x","channel":"stdout","offset":0,"max":1"#.to_owned(),
        format!(r#""job_id":"{JOB}","channel":"x","offset":0,"max":1"#),
        format!(r#""job_id":"{JOB}","channel":"stdout","offset":0,"max":0"#),
        format!(r#""job_id":"{JOB}","channel":"stdout","max":1"#),
    ] {
        assert_eq!(server(&members), ServerMessage::Unknown { name: "output_request".into() }, "{members}");
    }
    let bounded = server(&format!(
        r#""job_id":"{JOB}","channel":"stdout","offset":0,"max":99999999999,"wait":99999999"#
    ));
    let expected =
        Wanted { job: job(), channel: OutputChannel::Stdout, offset: 0, max: 49_152, wait: 30_000 };
    assert_eq!(bounded, ServerMessage::OutputRequest(expected));
}
