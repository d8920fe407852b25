//! Waiting for a job, as `job start` and `job watch` do, and what Ctrl-C means meanwhile.

use pushy_core::client::{Client, OutputEvent, Progress};
use pushy_core::ids::JobId;
use pushy_core::time::Millis;
use pushy_core::watch::{Exit, INTERRUPT_QUESTION, WatchOptions};
use pushy_core::{Error, ErrorCode};
use tokio::sync::oneshot;

use crate::Outcome;
use crate::args::{Global, Watch};
use crate::config::Config;
use crate::job::{job_id, poll_interval};
use crate::output::Live;
use crate::ui::Ui;

/// How to wait, and how to end.
pub(crate) struct Course {
    pub(crate) poll_interval: Millis,
    pub(crate) lenient: bool,
    /// Ctrl-C leaves the job running without a question.
    pub(crate) detach: bool,
    /// The job was started by somebody else.
    pub(crate) joined: bool,
}

pub(crate) async fn watch(global: &Global, args: &Watch, ui: &Ui) -> Outcome {
    let id = job_id(&args.id)?;
    let config = Config::load(global)?;
    ui.configure(&config)?;
    let interval = args.poll_interval.clone().or_else(|| config.knife_text("poll_interval"));
    let course = Course {
        poll_interval: poll_interval(interval.as_deref())?,
        lenient: args.lenient_exit || config.knife_flag("lenient_exit"),
        detach: args.detach_on_interrupt || config.knife_flag("detach_on_interrupt"),
        joined: true,
    };
    wait(global, &config.client()?, &id, course, None, ui).await
}

/// What Ctrl-C was told last.
#[derive(PartialEq)]
enum Asked {
    Nothing,
    /// The question stands there.
    WhatToDo,
    /// The job is being cancelled.
    Cancelled,
}

/// Waits until the job has ended or somebody has had enough.
///
/// With `live` what the commands print is data for standard output, and what is said of the job goes to standard error.
pub(crate) async fn wait(
    global: &Global,
    client: &Client,
    id: &JobId,
    course: Course,
    mut live: Option<Live>,
    ui: &Ui,
) -> Outcome {
    let options = WatchOptions {
        poll_interval: course.poll_interval,
        // A line that is rewritten and output of commands would be in each other's way.
        tallies: ui.has_progress_line() && live.is_none(),
        joined: course.joined,
        ..WatchOptions::default()
    };
    let mut wait = client.wait(id.clone(), options);
    let mut asked = Asked::Nothing;
    let mut answer: Option<oneshot::Receiver<String>> = None;
    ui.takes_interrupts(true);
    loop {
        tokio::select! {
            biased;
            interrupt = tokio::signal::ctrl_c() => {
                let asks = interrupt.is_ok() && !course.detach && ui.can_ask();
                match asked {
                    Asked::Nothing if asks => {
                        ui.question(INTERRUPT_QUESTION);
                        answer = Some(read_line());
                        asked = Asked::WhatToDo;
                    }
                    Asked::WhatToDo => {
                        answer = None;
                        ui.aside("");
                        if !cancel(client, id, ui).await {
                            return Ok(leave(global, id, ui));
                        }
                        asked = Asked::Cancelled;
                    }
                    Asked::Nothing | Asked::Cancelled => return Ok(leave(global, id, ui)),
                }
            }
            line = answered(&mut answer) => {
                answer = None;
                asked = Asked::Nothing;
                match line.trim() {
                    "d" | "D" => return Ok(leave(global, id, ui)),
                    "c" | "C" => {
                        if !cancel(client, id, ui).await {
                            return Ok(leave(global, id, ui));
                        }
                        asked = Asked::Cancelled;
                    }
                    _ => {}
                }
            }
            event = next(&mut live), if asked != Asked::WhatToDo => {
                if let Some(live) = &mut live {
                    live.show(event, ui);
                }
            }
            progress = wait.next() => match progress {
                // The question keeps its line.
                Progress::Tally(_) if asked == Asked::WhatToDo => {}
                Progress::Tally(tally) => ui.tally(&tally),
                Progress::Line(line) => {
                    if asked == Asked::WhatToDo {
                        ui.aside("");
                    }
                    match &mut live {
                        Some(live) => live.line(&line, ui),
                        None => ui.line(&line),
                    }
                }
                Progress::Notice(text) => ui.warn(&text),
                Progress::Finished(job) => {
                    if let Some(live) = &mut live {
                        live.finish(ui).await;
                    }
                    ui.job(job.document());
                    return Ok(Exit::of_job(&job, course.lenient));
                }
                Progress::GivenUp(error) => {
                    ui.error(error.message());
                    if error.code() != ErrorCode::NotFound {
                        ui.aside(&look(global, id));
                    }
                    let exit = Exit::of_error(&error);
                    ui.unfinished(id, error.message(), exit);
                    return Ok(exit);
                }
            },
        }
    }
}

async fn next(live: &mut Option<Live>) -> OutputEvent {
    match live {
        Some(live) => live.next().await,
        None => std::future::pending().await,
    }
}

/// Cancels the whole job; `false` when that cannot be done.
async fn cancel(client: &Client, id: &JobId, ui: &Ui) -> bool {
    let outcome = tokio::select! {
        biased;
        outcome = client.cancel_job(id, None) => outcome,
        _ = tokio::signal::ctrl_c() => Err(Error::new(ErrorCode::Interrupted, "interrupted before the server answered")),
    };
    match outcome {
        Ok(_) => ui.aside("Cancelling the job."),
        // It has ended meanwhile, and the wait is about to say so.
        Err(error) if error.code() == ErrorCode::InvalidState => {}
        Err(error) => {
            ui.error(error.message());
            return false;
        }
    }
    true
}

fn leave(global: &Global, id: &JobId, ui: &Ui) -> Exit {
    ui.aside(&format!("Interrupted. {}", look(global, id)));
    ui.unfinished(id, "interrupted; the job goes on", Exit::Interrupted);
    Exit::Interrupted
}

/// How to find the job again.
fn look(global: &Global, id: &JobId) -> String {
    let mut command = format!("pushy job status {id}");
    for (option, value) in [("-c", &global.config), ("--profile", &global.profile)] {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {value}"));
        }
    }
    format!("The job goes on; look at it with: {command}")
}

/// A line from the terminal, read by a thread that nobody waits for.
fn read_line() -> oneshot::Receiver<String> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        // A terminal that has gone answers nothing: the wait goes on.
        let _ = std::io::stdin().read_line(&mut line);
        let _ = sender.send(line);
    });
    receiver
}

async fn answered(answer: &mut Option<oneshot::Receiver<String>>) -> String {
    match answer {
        Some(receiver) => receiver.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
