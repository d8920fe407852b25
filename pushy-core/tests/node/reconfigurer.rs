//! Every (state, input) pair of the reconfigurer (1.6, D-54 to D-58, decision 26), written by hand.

use std::collections::BTreeMap;

use pushy_core::node::reconfigurer::{Action, Input, Reconfigurer, State, Trigger};
use pushy_core::time::Millis;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use State::{Expired, Fetching, Planned, Resting};

const INTERVAL: u64 = 10_000;
const NOW: u64 = 1_000_000;

const FETCH: Option<Action> = Some(Action::Fetch { new_keys: false });
const ROTATE: Option<Action> = Some(Action::Fetch { new_keys: true });

/// When the next deadline is, after `NOW`.
#[derive(Debug, Clone, Copy)]
enum Next {
    /// There is none.
    None,
    /// Within this many milliseconds.
    Within(u64),
    /// Between 0.9 and 1 times a lifetime of an hour.
    Lifetime,
}

fn lifetime() -> Millis {
    Millis::from_secs(3_600)
}

fn inputs() -> Vec<Input> {
    let mut inputs: Vec<Input> = Trigger::ALL.into_iter().map(Input::Triggered).collect();
    for idle in [true, false] {
        inputs.push(Input::PlanDue { idle });
        inputs.push(Input::LifetimeDue { idle });
    }
    inputs.extend([Input::BecameIdle, Input::Fetched { lifetime: lifetime() }, Input::Failed, Input::Proved]);
    inputs
}

/// A new input or trigger does not compile before it has a name here, nor pass before it has lines.
fn name(input: &Input) -> &'static str {
    match input {
        Input::Triggered(Trigger::Start) => "start",
        Input::Triggered(Trigger::ServerRestarted) => "server restarted",
        Input::Triggered(Trigger::ChannelDead) => "channel dead",
        Input::Triggered(Trigger::OutOfReach) => "out of reach",
        Input::Triggered(Trigger::Operator) => "operator",
        Input::PlanDue { idle: true } => "plan due, idle",
        Input::PlanDue { idle: false } => "plan due, busy",
        Input::LifetimeDue { idle: true } => "lifetime, idle",
        Input::LifetimeDue { idle: false } => "lifetime, busy",
        Input::BecameIdle => "became idle",
        Input::Fetched { .. } => "fetched",
        Input::Failed => "failed",
        Input::Proved => "proved",
    }
}

struct Bench {
    machine: Reconfigurer,
    random: ChaCha8Rng,
}

impl Bench {
    fn feed(&mut self, at: u64, input: Input) -> Option<Action> {
        let mut actions = Vec::new();
        self.machine.handle(Millis(at), input, &mut self.random, &mut actions);
        assert!(actions.len() <= 1, "{actions:?}");
        actions.pop()
    }

    fn new(seed: u64) -> Bench {
        let mut machine = Reconfigurer::new();
        machine.configure(Millis(INTERVAL));
        Bench { machine, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// In this state, with the deadline that led there already popped, as the machine's owner does.
    fn at(state: State, seed: u64) -> Bench {
        let mut bench = Bench::new(seed);
        match state {
            Resting => {}
            Planned => {
                bench.feed(NOW, Input::Triggered(Trigger::Start));
                bench.machine.pop_due(Millis(NOW), true);
            }
            Fetching => {
                bench.feed(NOW, Input::Triggered(Trigger::Start));
                bench.machine.pop_due(Millis(NOW), true);
                bench.feed(NOW, Input::PlanDue { idle: true });
            }
            Expired => {
                bench.feed(NOW, Input::LifetimeDue { idle: false });
            }
        }
        assert_eq!(bench.machine.state(), state);
        bench
    }
}

#[rustfmt::skip]
const TABLE: &[(State, &str, State, Option<Action>, Next)] = &[
    (Resting, "start", Planned, None, Next::Within(0)),
    (Resting, "server restarted", Planned, None, Next::Within(INTERVAL)),
    (Resting, "channel dead", Planned, None, Next::Within(2_000)),
    (Resting, "out of reach", Planned, None, Next::Within(0)),
    (Resting, "operator", Planned, None, Next::Within(0)),
    (Resting, "plan due, idle", Resting, None, Next::None),
    (Resting, "plan due, busy", Resting, None, Next::None),
    (Resting, "lifetime, idle", Fetching, ROTATE, Next::None),
    (Resting, "lifetime, busy", Expired, None, Next::None),
    (Resting, "became idle", Resting, None, Next::None),
    (Resting, "fetched", Resting, None, Next::Lifetime),
    (Resting, "failed", Resting, None, Next::None),
    (Resting, "proved", Resting, None, Next::None),
    (Planned, "start", Planned, None, Next::Within(0)),
    (Planned, "server restarted", Planned, None, Next::Within(INTERVAL)),
    (Planned, "channel dead", Planned, None, Next::Within(2_000)),
    (Planned, "out of reach", Planned, None, Next::Within(0)),
    (Planned, "operator", Planned, None, Next::Within(0)),
    (Planned, "plan due, idle", Fetching, FETCH, Next::None),
    (Planned, "plan due, busy", Fetching, FETCH, Next::None),
    (Planned, "lifetime, idle", Planned, None, Next::None),
    (Planned, "lifetime, busy", Planned, None, Next::None),
    (Planned, "became idle", Planned, None, Next::None),
    (Planned, "fetched", Resting, None, Next::Lifetime),
    (Planned, "failed", Planned, None, Next::None),
    (Planned, "proved", Planned, None, Next::None),
    // A fetch under way answers every trigger (D-58).
    (Fetching, "start", Fetching, None, Next::None),
    (Fetching, "server restarted", Fetching, None, Next::None),
    (Fetching, "channel dead", Fetching, None, Next::None),
    (Fetching, "out of reach", Fetching, None, Next::None),
    (Fetching, "operator", Fetching, None, Next::None),
    (Fetching, "plan due, idle", Fetching, None, Next::None),
    (Fetching, "plan due, busy", Fetching, None, Next::None),
    (Fetching, "lifetime, idle", Fetching, None, Next::None),
    (Fetching, "lifetime, busy", Fetching, None, Next::None),
    (Fetching, "became idle", Fetching, None, Next::None),
    (Fetching, "fetched", Resting, None, Next::Lifetime),
    (Fetching, "failed", Planned, None, Next::Within(2_000)),
    (Fetching, "proved", Fetching, None, Next::None),
    // Only the rotation of keys waits for the job (1.6).
    (Expired, "start", Planned, None, Next::Within(0)),
    (Expired, "server restarted", Planned, None, Next::Within(INTERVAL)),
    (Expired, "channel dead", Planned, None, Next::Within(2_000)),
    (Expired, "out of reach", Planned, None, Next::Within(0)),
    (Expired, "operator", Planned, None, Next::Within(0)),
    (Expired, "plan due, idle", Expired, None, Next::None),
    (Expired, "plan due, busy", Expired, None, Next::None),
    (Expired, "lifetime, idle", Fetching, ROTATE, Next::None),
    (Expired, "lifetime, busy", Expired, None, Next::None),
    (Expired, "became idle", Fetching, ROTATE, Next::None),
    (Expired, "fetched", Expired, None, Next::Lifetime),
    (Expired, "failed", Expired, None, Next::None),
    (Expired, "proved", Expired, None, Next::None),
];

#[test]
fn every_pair_does_what_its_line_says() {
    let mut lines = BTreeMap::new();
    for (state, input, next, action, deadline) in TABLE {
        let line = (*next, *action, *deadline);
        assert!(lines.insert((*state, *input), line).is_none(), "two lines for {state:?}, {input}");
    }
    for state in State::ALL {
        for input in inputs() {
            let key = (state, name(&input));
            let (next, action, deadline) = *lines.get(&key).unwrap_or_else(|| panic!("no line: {key:?}"));
            for seed in 0..20 {
                let mut bench = Bench::at(state, seed);
                assert_eq!(bench.feed(NOW, input), action, "{key:?}");
                assert_eq!(bench.machine.state(), next, "{key:?}");
                let at =
                    bench.machine.next_deadline().map(|at| at.0.checked_sub(NOW).expect("not in the past"));
                match deadline {
                    Next::None => assert_eq!(at, None, "{key:?}"),
                    Next::Within(most) => assert!(at.is_some_and(|at| at <= most), "{key:?}: {at:?}"),
                    Next::Lifetime => {
                        assert!(
                            at.is_some_and(|at| (3_240_000..=3_600_000).contains(&at)),
                            "{key:?}: {at:?}"
                        );
                    }
                }
            }
        }
    }
    assert_eq!(TABLE.len(), State::ALL.len() * inputs().len());
    println!(
        "reconfigurer: {} pairs of {} states and {} inputs",
        TABLE.len(),
        State::ALL.len(),
        inputs().len()
    );
}

/// D-56: a storm of triggers does not push the plan away; D-58: it becomes one fetch.
#[test]
fn triggers_join_in_the_earliest_plan() {
    let mut bench = Bench::new(7);
    bench.feed(NOW, Input::Triggered(Trigger::ServerRestarted));
    let first = bench.machine.next_deadline().expect("planned");
    for later in 1..50 {
        bench.feed(NOW + later * 10, Input::Triggered(Trigger::ServerRestarted));
        assert!(bench.machine.next_deadline().expect("planned") <= first);
    }
    let due = bench.machine.next_deadline().expect("planned");
    assert_eq!(bench.machine.pop_due(due, false), Some(Input::PlanDue { idle: false }));
    assert_eq!(bench.feed(due.0, Input::PlanDue { idle: false }), FETCH);
    assert_eq!(bench.machine.pop_due(Millis(due.0 + 100_000), false), None);
}

/// Decision 26: full jitter in a window that doubles to 10 s, short again once the channel works.
#[test]
fn failures_back_off_until_the_channel_is_proved() {
    let longest = |failures: usize, proved: bool| {
        (0..200)
            .map(|seed| {
                let mut bench = Bench::at(Fetching, seed);
                let mut wait = 0;
                for _ in 0..failures {
                    bench.feed(NOW, Input::Failed);
                    wait = bench.machine.next_deadline().expect("planned").0 - NOW;
                    bench.machine.pop_due(Millis(NOW + wait), true);
                    bench.feed(NOW, Input::PlanDue { idle: true });
                }
                if proved {
                    bench.feed(NOW, Input::Proved);
                    bench.feed(NOW, Input::Failed);
                    wait = bench.machine.next_deadline().expect("planned").0 - NOW;
                }
                wait
            })
            .max()
            .expect("200 seeds")
    };
    for (failures, proved, window) in
        [(1, false, 2_000), (2, false, 4_000), (3, false, 8_000), (9, false, 10_000), (9, true, 2_000)]
    {
        let longest = longest(failures, proved);
        assert!(longest <= window && longest > window * 9 / 10, "{failures} {proved}: {longest}");
    }
}

/// A rotation that a busy node could not make is made up for.
#[test]
fn keys_rotate_when_the_job_has_ended() {
    let mut bench = Bench::at(Expired, 1);
    bench.feed(NOW, Input::Triggered(Trigger::Operator));
    assert_eq!(bench.feed(NOW, Input::PlanDue { idle: false }), FETCH);
    bench.feed(NOW, Input::Fetched { lifetime: lifetime() });
    assert_eq!(bench.machine.state(), Expired);
    assert_eq!(bench.feed(NOW, Input::BecameIdle), ROTATE);
    bench.feed(NOW, Input::Fetched { lifetime: lifetime() });
    assert_eq!(bench.machine.state(), Resting);
}

/// A fleet whose server was away does not ask for a thousand configurations once its connections work again.
#[test]
fn a_plan_made_for_a_dead_channel_is_dropped_when_the_channel_works() {
    for (triggers, next) in [
        (&[Trigger::ChannelDead][..], Resting),
        (&[Trigger::OutOfReach, Trigger::ChannelDead], Resting),
        (&[Trigger::ChannelDead, Trigger::ServerRestarted], Planned),
        (&[Trigger::Operator, Trigger::OutOfReach], Planned),
    ] {
        let mut bench = Bench::new(5);
        for trigger in triggers {
            bench.feed(NOW, Input::Triggered(*trigger));
        }
        bench.feed(NOW, Input::Proved);
        assert_eq!(bench.machine.state(), next, "{triggers:?}");
        assert_eq!(bench.machine.next_deadline().is_some(), next == Planned, "{triggers:?}");
    }
}
