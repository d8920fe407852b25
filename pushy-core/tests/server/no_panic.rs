//! Any input in any order: numbers nobody was given, frames of nonsense, answers nobody waits for. The machine never
//! panics, and goes on working for a node that behaves.

use pushy_core::ids::{JobId, OrgId};
use pushy_core::job::{JobOptions, JobRequest};
use pushy_core::message::{Captured, JobRef, JobState, NodeMessage};
use pushy_core::server::{ConnId, CurveKey, Input, RequestId, Ticket};
use pushy_core::time::{Millis, Wall};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::lab::*;

fn bytes(random: &mut ChaCha8Rng, up_to: u32) -> Vec<u8> {
    let mut bytes = vec![0; (random.next_u32() % up_to) as usize];
    random.fill_bytes(&mut bytes);
    bytes
}

fn message(random: &mut ChaCha8Rng, jobs: &[JobId]) -> NodeMessage {
    let job = match random.next_u32() % 4 {
        0 => JobRef::None,
        1 => JobRef::Other("nonsense".into()),
        _ if jobs.is_empty() => JobRef::None,
        n => JobRef::Id(jobs[n as usize % jobs.len()].clone()),
    };
    let output = Captured { stdout: Some("o".into()), stderr: Some("e".into()) };
    match random.next_u32() % 9 {
        0 => NodeMessage::Heartbeat { state: None, job, caps: None },
        1 => NodeMessage::Heartbeat { state: Some(JobState::Running), job, caps: None },
        2 => NodeMessage::AckCommit { job },
        3 => NodeMessage::NackCommit { job, reason: None },
        4 => NodeMessage::AckRun { job },
        5 => NodeMessage::NackRun { job, reason: None },
        6 => NodeMessage::Succeeded { job, output },
        7 => NodeMessage::Failed { job, output, reason: None },
        _ => NodeMessage::Aborted { job, reason: None },
    }
}

fn input(random: &mut ChaCha8Rng) -> Input {
    let conn = ConnId(u64::from(random.next_u32() % 12));
    let request = RequestId(u64::from(random.next_u32()));
    let node = node_ref(["a", "b", "c", "ghost"][random.next_u32() as usize % 4]);
    let key = CurveKey([(random.next_u32() % 4) as u8; 32]);
    match random.next_u32() % 11 {
        0 => Input::Tick,
        1 => Input::FetchConfig {
            request,
            node,
            org_name: org_name(),
            key,
            public_key: if random.next_u32() % 4 == 0 { "nonsense".into() } else { rsa().1.clone() },
            is_node: random.next_u32() % 4 != 0,
        },
        2 => Input::Handshake { conn, key, peer: String::new() },
        3 => Input::Opened { conn },
        4 => Input::Closed { conn },
        5 => Input::Frames { conn, header: bytes(random, 80), body: bytes(random, 80) },
        6 => Input::StartJob {
            request,
            org: OrgId::new("0123456789abcdef0123456789abcdef").unwrap(),
            requester: String::new(),
            job: Box::new(JobRequest {
                command: String::new(),
                nodes: (0..random.next_u32() % 4)
                    .map(|n| name(["a", "b", "a", "ghost"][n as usize]))
                    .collect(),
                run_timeout: Some(random.next_u32()),
                quorum: Some(random.next_u32() % 5),
                options: JobOptions::default(),
            }),
        },
        7 => Input::Persisted { ticket: Ticket(u64::from(random.next_u32() % 64)) },
        8 => Input::PersistFailed { ticket: Ticket(u64::from(random.next_u32() % 64)) },
        9 => Input::EndBindings { node, why: String::new() },
        _ => Input::Described {
            node,
            client: String::from_utf8_lossy(&bytes(random, 120)).into_owned(),
            address: String::from_utf8_lossy(&bytes(random, 12)).into_owned(),
        },
    }
}

#[test]
fn any_inputs_in_any_order() {
    for seed in 0..60 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut lab = Lab::new();
        for node in ["a", "b", "c"] {
            lab.bring_up(node);
        }
        for _ in 0..300 {
            match random.next_u32() % 8 {
                0..=2 => {
                    let input = input(&mut random);
                    lab.handle(input);
                }
                3..=5 => {
                    let node = ["a", "b", "c"][random.next_u32() as usize % 3];
                    let jobs = lab.server.counts().1;
                    let message = message(&mut random, &jobs);
                    if lab.node(node).conn.is_some() {
                        lab.say(node, message);
                    }
                }
                6 => {
                    lab.disk = [Disk::Keeps, Disk::Waits, Disk::Fails][random.next_u32() as usize % 3];
                    lab.serve_disk();
                }
                _ => {
                    // Either clock may do anything; the machine takes the later monotonic time.
                    let to = Millis(lab.now.mono.0 + u64::from(random.next_u32() % 40_000));
                    lab.advance(if random.next_u32() % 8 == 0 { Millis(0) } else { to });
                    if random.next_u32() % 16 == 0 {
                        lab.now.wall = Wall(i64::from(random.next_u32() as i32) << (random.next_u32() % 33));
                    }
                    lab.handle(Input::Tick);
                }
            }
            lab.clear();
            if random.next_u32() % 16 == 0 {
                let told =
                    (lab.server.node_details(&org()), lab.server.node_warnings(9), lab.server.node_counts());
                assert!(told.0.len() >= told.1.len(), "seed {seed}: {told:?}");
            }
        }
        // A node that behaves still gets its job.
        lab.set_disk(Disk::Keeps);
        lab.now.wall = Wall::from_secs(T0 + 100_000);
        lab.now.mono = Millis(1 << 40);
        lab.pass(2_000);
        lab.bring_up("z");
        let job = lab.start(&["z"]);
        for word in [ack_commit, ack_run, succeeded] {
            lab.say("z", word(&job));
        }
        assert_eq!(lab.job_status(&job), pushy_core::job::JobStatus::Complete, "seed {seed}");
    }
}
