//! Runs the checklist over all combinations at the same time, a line for each test; understands the arguments of
//! `cargo test` and `cargo nextest`.

use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::site::{KINDS, Kind, Site};
use crate::target::Target;

/// What a test must be able to do with its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Requests.
    Rest,
    /// Groups of its choice.
    Groups,
    /// Nodes of its own.
    Nodes,
    /// A server of its own, with its settings.
    Server,
}

/// One line of the checklist.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) needs: Needs,
    pub(crate) run: fn(&Target),
}

/// A letter of the checklist: what each test needs, and its name.
macro_rules! checklist {
    ($($needs:ident $name:ident),* $(,)?) => {
        pub(crate) const CHECKLIST: &[$crate::runner::Test] = &[$(
            $crate::runner::Test {
                name: stringify!($name),
                needs: $crate::runner::Needs::$needs,
                run: $name,
            },
        )*];
    };
}
pub(crate) use checklist;

/// More than this many tests at a time only make each other late.
const THREADS: usize = 10;
const REMOTE: &str = "remote";
/// A server of ours known by its URL only: the part of the checklist that can be pointed at any server.
const URL: &str = "url";

/// What the command line asks for.
#[derive(Default)]
struct Args {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    terse: bool,
    none: bool,
    threads: Option<usize>,
}

impl Args {
    fn parse(args: impl Iterator<Item = String>) -> Args {
        let mut parsed = Args::default();
        let mut args = args.map(|arg| match arg.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (arg, None),
        });
        while let Some((name, value)) = args.next() {
            let mut value =
                || value.clone().or_else(|| args.next().map(|(value, _)| value)).unwrap_or_default();
            match name.as_str() {
                "--list" => parsed.list = true,
                "--exact" => parsed.exact = true,
                // Nothing here is ignored.
                "--ignored" => parsed.none = true,
                "--format" => parsed.terse = value() == "terse",
                "--skip" => parsed.skip.push(value()),
                "--test-threads" => parsed.threads = value().parse().ok(),
                other if other.starts_with('-') => {}
                _ => parsed.filters.push(name),
            }
        }
        parsed
    }

    fn wants(&self, site: &str, test: &str) -> bool {
        let full = format!("{site}::{test}");
        let fits = |filter: &String| {
            if self.exact {
                *filter == full || filter == site || filter == test
            } else {
                full.contains(filter)
            }
        };
        !self.none
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skip.iter().any(fits)
    }
}

enum Outcome {
    Passed(Duration),
    Failed,
    Skipped(&'static str),
}

/// Where a test's target comes from.
#[derive(Clone)]
enum Ground {
    Ours(Arc<Site>),
    Remote(Arc<Target>),
}

struct Job {
    ground: Ground,
    site: &'static str,
    test: &'static Test,
}

fn carry_out(job: &Job) -> Outcome {
    let began = Instant::now();
    let passed = catch_unwind(AssertUnwindSafe(|| match &job.ground {
        Ground::Ours(site) => (job.test.run)(&Target::new(site, &[])),
        Ground::Remote(target) => (job.test.run)(target),
    }));
    if passed.is_ok() { Outcome::Passed(began.elapsed()) } else { Outcome::Failed }
}

fn why_skipped(ground: &Ground, needs: Needs) -> Option<&'static str> {
    match (ground, needs) {
        (Ground::Ours(_), _) | (_, Needs::Rest) => None,
        (Ground::Remote(_), Needs::Groups) => Some("needs control of the groups"),
        (Ground::Remote(_), Needs::Nodes) => Some("needs nodes of its own"),
        (Ground::Remote(_), Needs::Server) => Some("needs a server of its own"),
    }
}

/// Starts what is needed: the sites that some test is to run on.
fn grounds(args: &Args, tests: &[&'static Test]) -> Vec<(&'static str, Ground)> {
    if let Ok(url) = std::env::var("PUSHY_CONFORMANCE_URL") {
        let file = std::env::var("PUSHY_CONFORMANCE_ACTORS")
            .unwrap_or_else(|_| fail("PUSHY_CONFORMANCE_ACTORS must name the file with the credentials"));
        let target = Target::remote(&url, Path::new(&file)).unwrap_or_else(|e| fail(&e));
        return vec![(REMOTE, Ground::Remote(Arc::new(target)))];
    }
    let by_url = tests.iter().any(|test| test.needs == Needs::Rest && args.wants(URL, test.name));
    let wanted = |kind: &&Kind| {
        let first = std::ptr::eq(*kind, &KINDS[0]);
        (first && by_url) || tests.iter().any(|test| args.wants(kind.name, test.name))
    };
    let possible = |kind: &&Kind| {
        let possible = kind.is_possible();
        if !possible {
            println!("{} ... skipped: PostgreSQL is not installed (script/bootstrap installs it)", kind.name);
        }
        possible
    };
    std::thread::scope(|scope| {
        let start = |kind: &'static Kind| (kind.name, scope.spawn(|| Arc::new(Site::start(*kind, ""))));
        let started: Vec<_> = KINDS.iter().filter(wanted).filter(possible).map(start).collect();
        let ready = |handle: std::thread::ScopedJoinHandle<'_, Arc<Site>>| {
            handle.join().unwrap_or_else(|_| fail("a server did not start"))
        };
        let mut grounds = Vec::new();
        for (name, handle) in started {
            let site = ready(handle);
            if by_url && name == KINDS[0].name {
                grounds.push((URL, Ground::Remote(Arc::new(Target::by_url(&site)))));
            }
            grounds.push((name, Ground::Ours(site)));
        }
        grounds
    })
}

fn fail(why: &str) -> ! {
    eprintln!("conformance: {why}");
    std::process::exit(1);
}

/// The whole run.
pub(crate) fn main(tests: &[&'static Test]) -> ExitCode {
    let args = Args::parse(std::env::args().skip(1));
    if args.list {
        list(&args, tests);
        return ExitCode::SUCCESS;
    }
    let grounds = grounds(&args, tests);
    let began = Instant::now();
    let mut jobs = VecDeque::new();
    // The later letters wait most, so they begin.
    for test in tests.iter().rev() {
        let here = |site: &str| args.wants(site, test.name) && (site != URL || test.needs == Needs::Rest);
        for (site, ground) in grounds.iter().filter(|(site, _)| here(site)) {
            jobs.push_back(Job { ground: ground.clone(), site, test });
        }
    }
    let remote = grounds.iter().any(|(name, _)| *name == REMOTE);
    let threads = args.threads.unwrap_or(if remote { 1 } else { THREADS });
    let (jobs, done) = (Mutex::new(jobs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| work(&jobs, &done));
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let failed = report(&done, began.elapsed());
    if failed {
        for (name, ground) in grounds {
            if let Ground::Ours(site) = ground
                && let Some(mut site) = Arc::into_inner(site)
            {
                println!("{name}: files and log of the server are in {}", site.keep().display());
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

type Done = (&'static str, &'static str, Outcome);

fn work(jobs: &Mutex<VecDeque<Job>>, done: &Mutex<Vec<Done>>) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    while let Some(job) = next() {
        let (site, test) = (job.site, job.test.name);
        let outcome = match why_skipped(&job.ground, job.test.needs) {
            Some(why) => Outcome::Skipped(why),
            None => {
                // A thread of the test's name, so that a panic says whose it is.
                let named = std::thread::Builder::new().name(format!("{site}::{test}"));
                let thread = named.spawn(move || carry_out(&job)).expect("a thread");
                thread.join().unwrap_or(Outcome::Failed)
            }
        };
        let said = match &outcome {
            Outcome::Passed(time) => format!("ok ({:.2} s)", time.as_secs_f64()),
            Outcome::Failed => "FAILED".to_owned(),
            Outcome::Skipped(why) => format!("skipped: {why}"),
        };
        println!("{site}::{test} ... {said}");
        done.lock().unwrap_or_else(PoisonError::into_inner).push((site, test, outcome));
    }
}

/// Tests per letter and combination; whether any failed.
fn report(done: &[Done], time: Duration) -> bool {
    let mut table: BTreeMap<&str, BTreeMap<char, usize>> = BTreeMap::new();
    let (mut failed, mut skipped, mut slowest) = (Vec::new(), 0, (Duration::ZERO, String::new()));
    for (site, test, outcome) in done {
        match outcome {
            Outcome::Passed(took) => {
                let letter = test.chars().next().unwrap_or('?').to_ascii_uppercase();
                *table.entry(site).or_default().entry(letter).or_default() += 1;
                slowest = slowest.max((*took, format!("{site}::{test}")));
            }
            Outcome::Failed => failed.push(format!("{site}::{test}")),
            Outcome::Skipped(_) => skipped += 1,
        }
    }
    println!();
    for (site, letters) in &table {
        let counts: Vec<String> = letters.iter().map(|(letter, n)| format!("{letter} {n}")).collect();
        println!("{site}: {} passed: {}", letters.values().sum::<usize>(), counts.join(", "));
    }
    println!("slowest: {} ({:.1} s)", slowest.1, slowest.0.as_secs_f64());
    for name in &failed {
        println!("FAILED {name}");
    }
    let passed: usize = table.values().flat_map(BTreeMap::values).sum();
    println!(
        "conformance: {passed} passed, {} failed, {skipped} skipped in {:.1} s",
        failed.len(),
        time.as_secs_f64()
    );
    !failed.is_empty()
}

/// nextest runs every listed name in a process of its own, so it is told of whole combinations only.
fn list(args: &Args, tests: &[&'static Test]) {
    if args.none {
        return;
    }
    for site in KINDS.iter().map(|kind| kind.name).chain([URL]) {
        if args.terse {
            println!("{site}: test");
            continue;
        }
        let here = |test: &&&Test| site != URL || test.needs == Needs::Rest;
        for test in tests.iter().filter(here).filter(|test| args.wants(site, test.name)) {
            println!("{site}::{}: test", test.name);
        }
    }
}
