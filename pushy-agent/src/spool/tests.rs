//! What is kept, read back: whole, in pieces, of one channel or both, after a restart, and when there is no room.

use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const KEEP: Duration = Duration::from_secs(3600);

fn id(n: u8) -> JobId {
    JobId::new(&format!("{n:032x}")).expect("an id")
}

fn limits(job: u64, all: u64) -> Limits {
    Limits { job, all, keep: KEEP }
}

fn quiet() -> Tell {
    Box::new(|_| {})
}

fn wanted(job: &JobId, channel: OutputChannel, offset: u64, max: u32) -> Wanted {
    Wanted { job: job.clone(), channel, offset, max, wait: 0 }
}

fn chunk(spools: &mut Spools, wanted: Wanted) -> Chunk {
    match spools.read(wanted)() {
        Piece::Read(chunk) => chunk,
        Piece::Missing => panic!("nothing is kept"),
    }
}

/// A whole channel, read in pieces of `max`.
fn whole(spools: &mut Spools, job: &JobId, channel: OutputChannel, max: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let piece = chunk(spools, wanted(job, channel, bytes.len() as u64, max));
        assert!(piece.data.len() <= max as usize);
        bytes.extend(&piece.data);
        if piece.data.is_empty() {
            assert_eq!(piece.total, bytes.len() as u64);
            return bytes;
        }
    }
}

/// Records of sizes that do not fit anything, on both channels.
fn fill(spool: &Spool) -> [Vec<u8>; 2] {
    let mut sides = [Vec::new(), Vec::new()];
    for turn in 0..2000u32 {
        let side = if turn % 3 == 1 { Side::Stderr } else { Side::Stdout };
        let bytes: Vec<u8> = (0..turn * 7 % 901).map(|at| (at ^ turn) as u8).collect();
        spool.push(side, &bytes);
        sides[side as usize].extend(bytes);
    }
    sides
}

#[test]
fn everything_comes_back_in_pieces_of_any_size_also_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spools = Spools::open(dir.path());
    let job = id(1);
    let spool = spools.create(&job, limits(1 << 30, 1 << 30), quiet()).expect("a spool");
    let sides = fill(&spool);
    let path = dir.path().join("output").join(format!("{job}.log"));
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let check = |spools: &mut Spools, done: bool| {
        for max in [700, 4096, 49_152] {
            assert!(whole(spools, &job, OutputChannel::Stdout, max) == sides[0], "stdout by {max}");
            assert!(whole(spools, &job, OutputChannel::Stderr, max) == sides[1], "stderr by {max}");
        }
        let both = whole(spools, &job, OutputChannel::Both, 49_152);
        let mut found: [Vec<u8>; 2] = Default::default();
        let mut unframer = pushy_core::output::Unframer::default();
        let mut rest = &both[..];
        while let Some(piece) = unframer.next(&mut rest).expect("records") {
            found[side_of(piece.kind)].extend(piece.bytes);
        }
        assert!(unframer.is_between() && found == sides);
        let end = chunk(spools, wanted(&job, OutputChannel::Stdout, 1 << 40, 10));
        assert_eq!((end.done, end.total, end.lost), (done, sides[0].len() as u64, 0));
        assert!(end.data.is_empty());
    };
    check(&mut spools, false);
    spool.finish();
    check(&mut spools, true);
    drop((spool, spools));
    check(&mut Spools::open(dir.path()), true);
    // A record that was cut off by a crash is left out.
    let file = OpenOptions::new().write(true).open(&path).expect("open");
    let length = file.metadata().expect("there").len();
    file.set_len(length - 1).expect("cut");
    let mut spools = Spools::open(dir.path());
    let kept = whole(&mut spools, &job, OutputChannel::Stderr, 49_152);
    assert!(kept.len() < sides[1].len() && sides[1].starts_with(&kept));
}

#[test]
fn a_limit_ends_the_file_and_not_the_job() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spools = Spools::open(dir.path());
    let job = id(1);
    let spool = spools.create(&job, limits(1000, 1 << 30), quiet()).expect("a spool");
    for _ in 0..10 {
        spool.push(Side::Stdout, &[b'x'; 192]);
    }
    spool.push(Side::Stderr, b"small, but after the end");
    spool.finish();
    drop(spool);
    for mut spools in [spools, Spools::open(dir.path())] {
        let end = chunk(&mut spools, wanted(&job, OutputChannel::Stdout, 0, 2000));
        assert_eq!((end.data.len(), end.total, end.lost, end.done), (960, 960, 960, true));
        let end = chunk(&mut spools, wanted(&job, OutputChannel::Both, 0, 2000));
        assert_eq!((end.data.len(), end.lost), (1000, 960 + 24));
    }
}

#[test]
fn a_full_disk_ends_the_file_and_not_the_job() {
    let dir = tempfile::tempdir().expect("a directory");
    // Every write to it fails as on a full disk.
    let path = dir.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("open");
    let spool = Spool { file, limit: 1 << 30, state: Mutex::default(), tell: None };
    spool.push(Side::Stdout, b"lost");
    spool.push(Side::Stderr, b"as well");
    spool.finish();
    let state = spool.state();
    assert_eq!((state.lost, state.done, state.end.log), ([4, 7], true, 0));
}

#[test]
fn whoever_has_read_to_the_end_is_told_once() {
    static TOLD: AtomicUsize = AtomicUsize::new(0);
    let dir = tempfile::tempdir().expect("a directory");
    let mut spools = Spools::open(dir.path());
    let job = id(1);
    let tell = Box::new(|ended| {
        TOLD.fetch_add(if ended { 100 } else { 1 }, Ordering::SeqCst);
    });
    let spool = spools.create(&job, limits(1 << 20, 1 << 20), tell).expect("a spool");
    spool.push(Side::Stdout, b"a");
    assert_eq!(TOLD.load(Ordering::SeqCst), 0);
    assert_eq!(chunk(&mut spools, wanted(&job, OutputChannel::Stdout, 0, 9)).data, b"a");
    spool.push(Side::Stdout, b"b");
    assert_eq!(TOLD.load(Ordering::SeqCst), 0, "not at the end");
    assert!(chunk(&mut spools, wanted(&job, OutputChannel::Stdout, 2, 9)).data.is_empty());
    spool.push(Side::Stdout, b"c");
    spool.push(Side::Stdout, b"d");
    assert_eq!(TOLD.load(Ordering::SeqCst), 1);
    spool.finish();
    assert_eq!(TOLD.load(Ordering::SeqCst), 101);
}

#[test]
fn one_that_is_written_is_never_taken_for_complete() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spools = Spools::open(dir.path());
    let all = limits(1 << 20, 1 << 30);
    assert!(spools.create(&id(99), limits(0, 1 << 30), quiet()).is_none(), "nothing is to be kept");
    for n in 1..=6 {
        spools.create(&id(n), all, quiet()).expect("a spool").finish();
    }
    let written = spools.create(&id(7), all, quiet()).expect("a spool");
    for n in 1..=6 {
        assert!(chunk(&mut spools, wanted(&id(n), OutputChannel::Both, 0, 1)).done);
    }
    assert!(!chunk(&mut spools, wanted(&id(7), OutputChannel::Both, 0, 1)).done);
    assert!(spools.held.len() <= HELD);
    drop(written);
}

#[test]
fn the_oldest_go_first_and_none_outlives_its_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut spools = Spools::open(dir.path());
    let small = limits(1 << 20, 5000);
    for n in 1..=4 {
        let spool = spools.create(&id(n), small, quiet()).expect("a spool");
        spool.push(Side::Stdout, &[b'x'; 2000]);
        spool.finish();
        let old = SystemTime::now() - Duration::from_secs(100 - u64::from(n));
        spool.file.set_modified(old).expect("aged");
    }
    assert!(spools.expire(small, None));
    let kept = |spools: &mut Spools| {
        (1..=4u8)
            .filter(|n| spools.read(wanted(&id(*n), OutputChannel::Stdout, 0, 1))() != Piece::Missing)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&mut spools), [3, 4]);
    let short = Limits { keep: Duration::from_secs(97), ..small };
    assert!(spools.expire(short, None));
    assert_eq!(kept(&mut spools), [4]);
    assert!(spools.expire(Limits { keep: Duration::ZERO, ..small }, Some(&id(4))), "its job is under way");
    assert!(!spools.expire(Limits { keep: Duration::ZERO, ..small }, None));
    assert!(kept(&mut spools).is_empty());
}
