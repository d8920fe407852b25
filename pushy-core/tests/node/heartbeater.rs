//! Every (state, input) pair of the heartbeater (1.3, 7.8, D-55, D-59), written by hand.

use std::collections::BTreeMap;

use pushy_core::node::heartbeater::{Action, CHANNEL_CHECK, Heartbeater, Input, State};
use pushy_core::time::Millis;

use Input::{Answered, Authenticated, BeatDue, CheckDue, Connected, Disconnected, Heard, PortChanged};
use State::{Checking, Offline, Online};

const INTERVAL: Millis = Millis(1_000);

fn feed(machine: &mut Heartbeater, at: u64, input: Input) -> Vec<Action> {
    let mut actions = Vec::new();
    machine.handle(Millis(at), input, &mut actions);
    actions
}

fn at(state: State) -> Heartbeater {
    let mut machine = Heartbeater::new(INTERVAL, 3);
    let way: &[Input] = match state {
        Offline => &[],
        Checking => &[Connected],
        Online => &[Connected, Answered],
    };
    for input in way {
        feed(&mut machine, 0, *input);
    }
    assert_eq!(machine.state(), state);
    machine
}

#[rustfmt::skip]
const TABLE: &[(State, Input, State, &[Action])] = &[
    (Offline, Connected, Checking, &[Action::Beat]),
    (Offline, Disconnected, Offline, &[]),
    (Offline, Answered, Offline, &[]),
    (Offline, Authenticated, Offline, &[]),
    (Offline, Heard, Offline, &[]),
    (Offline, PortChanged, Offline, &[]),
    (Offline, BeatDue, Offline, &[]),
    (Offline, CheckDue, Offline, &[]),
    (Checking, Connected, Checking, &[Action::Beat]),
    (Checking, Disconnected, Offline, &[]),
    (Checking, Answered, Online, &[Action::Proved]),
    (Checking, Authenticated, Checking, &[]),
    (Checking, Heard, Checking, &[]),
    (Checking, PortChanged, Checking, &[]),
    (Checking, BeatDue, Checking, &[Action::Beat]),
    (Checking, CheckDue, Offline, &[Action::ChannelDead]),
    (Online, Connected, Checking, &[Action::Beat]),
    (Online, Disconnected, Offline, &[]),
    (Online, Answered, Online, &[]),
    (Online, Authenticated, Online, &[]),
    (Online, Heard, Online, &[]),
    (Online, PortChanged, Online, &[]),
    (Online, BeatDue, Online, &[Action::Beat]),
    (Online, CheckDue, Online, &[]),
];

#[test]
fn every_pair_does_what_its_line_says() {
    let mut lines = BTreeMap::new();
    for (state, input, next, actions) in TABLE {
        assert!(
            lines.insert((*state, *input), (*next, *actions)).is_none(),
            "two lines for {state:?}, {input:?}"
        );
    }
    for state in State::ALL {
        for input in Input::ALL {
            let (next, expected) =
                lines.remove(&(state, input)).unwrap_or_else(|| panic!("no line: {state:?}, {input:?}"));
            let mut machine = at(state);
            assert_eq!(feed(&mut machine, 10, input), expected, "{state:?}, {input:?}");
            assert_eq!(machine.state(), next, "{state:?}, {input:?}");
        }
    }
    println!(
        "heartbeater: {} pairs of {} states and {} inputs",
        TABLE.len(),
        State::ALL.len(),
        Input::ALL.len()
    );
}

/// Lets time pass; gives each action with its moment.
fn pass(machine: &mut Heartbeater, until: u64) -> Vec<(u64, Action)> {
    let mut seen = Vec::new();
    while let Some(at) = machine.next_deadline().filter(|at| at.0 <= until) {
        while let Some(input) = machine.pop_due(at) {
            seen.extend(feed(machine, at.0, input).into_iter().map(|action| (at.0, action)));
        }
    }
    seen
}

#[test]
fn a_silent_channel_is_given_up_after_four_seconds_by_the_clock() {
    let mut machine = at(Checking);
    let seen = pass(&mut machine, 60_000);
    assert_eq!(seen.last(), Some(&(CHANNEL_CHECK.0, Action::ChannelDead)));
    assert_eq!(machine.next_deadline(), None);
}

/// 7.8: offline on the fifth tick after the last sign of life.
#[test]
fn a_server_that_falls_silent_is_left_on_the_fifth_tick() {
    for sign in [Heard, Authenticated] {
        let mut machine = at(Online);
        feed(&mut machine, 0, Heard);
        assert_eq!(pass(&mut machine, 3_500).len(), 3);
        feed(&mut machine, 3_500, sign);
        let seen = pass(&mut machine, 60_000);
        assert_eq!(seen.last(), Some(&(8_000, Action::ServerSilent)), "{sign:?}");
        assert_eq!(machine.state(), Offline);
    }
}

/// D-59: with the heartbeat port blocked there is nothing to hear, so silence means nothing.
#[test]
fn a_node_that_cannot_hear_heartbeats_does_not_flap() {
    for blocked in [&[][..], &[Heard, PortChanged]] {
        let mut machine = at(Online);
        for input in blocked {
            feed(&mut machine, 0, *input);
        }
        let seen = pass(&mut machine, 100_000);
        assert_eq!(seen.len(), 100);
        assert!(seen.iter().all(|(_, action)| *action == Action::Beat), "{blocked:?}");
    }
}
