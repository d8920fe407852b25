//! What commands printed, whole, on disk until it is fetched or its time is over (extension `output`).
//!
//! One file for each job: a head of 32 bytes, then records ([`pushy_core::output`]) in the order in which they arrived.
//! A file that cannot grow any more ends where it is, and its head says how many bytes are missing: a full disk fails no
//! job. After a restart of the agent the files of earlier jobs can still be read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use pushy_core::ids::JobId;
use pushy_core::node::outputs::Piece;
use pushy_core::output::{Chunk, HEAD, Kind, MAX_RECORD, OutputChannel, Wanted, head, read_head};

/// Bytes of a file before its records: magic, bytes lost of each channel, whether it is complete.
const FILE_HEAD: u64 = 32;
const MAGIC: &[u8; 8] = b"pushyout";
/// So many bytes of records lie between two marks of the index.
const MARK_EVERY: u64 = 256 << 10;
/// So many bytes are written between two looks at the file system.
const LOOK_EVERY: u64 = 8 << 20;
/// A spool leaves a twentieth of the file system free, or so many bytes if that is less.
const MOST_FREE: u64 = 1 << 30;
/// So many files are held open for whoever reads them.
const HELD: usize = 4;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one job.
    pub job: u64,
    /// Bytes of all jobs together; the oldest go first.
    pub all: u64,
    /// After the end of the job.
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { job: 2 << 30, all: 4 << 30, keep: Duration::from_secs(86_400) }
    }
}

/// The directory of all spools.
#[derive(Debug)]
pub(crate) struct Spools {
    dir: Option<PathBuf>,
    held: Vec<(JobId, Arc<Spool>)>,
}

impl Spools {
    /// Makes the directory if need be. What cannot be kept is not spooled, and the log says so.
    pub(crate) fn open(state_dir: &Path) -> Spools {
        let dir = state_dir.join("output");
        match DirBuilder::new().recursive(true).mode(0o700).create(&dir) {
            Ok(()) => Spools { dir: Some(dir), held: Vec::new() },
            Err(error) => {
                tracing::warn!("cannot use {}: {error}; output is kept in part only", dir.display());
                Spools { dir: None, held: Vec::new() }
            }
        }
    }

    fn path(&self, job: &JobId) -> Option<PathBuf> {
        self.dir.as_ref().map(|dir| dir.join(format!("{job}.log")))
    }

    /// A spool for a job that is about to start. `None`: its output is kept in part only.
    pub(crate) fn create(&mut self, job: &JobId, limits: Limits, tell: Tell) -> Option<Arc<Spool>> {
        self.expire(limits, Some(job));
        if limits.job.min(limits.all) == 0 {
            return None;
        }
        let path = self.path(job)?;
        match Spool::create(&path, limits.job.min(limits.all), tell) {
            Ok(spool) => {
                let spool = Arc::new(spool);
                self.hold(job.clone(), Arc::clone(&spool));
                Some(spool)
            }
            Err(error) => {
                tracing::warn!("cannot write {}: {error}; output is kept in part only", path.display());
                None
            }
        }
    }

    fn hold(&mut self, job: JobId, spool: Arc<Spool>) {
        self.held.retain(|(held, _)| *held != job);
        // One that is being written stays: read from its file alone, it would look complete.
        if self.held.len() >= HELD
            && let Some(at) = self.held.iter().position(|(_, spool)| !spool.is_written())
        {
            self.held.remove(at);
        }
        self.held.push((job, spool));
    }

    /// The spool of a job, of an earlier life of this agent as well.
    fn find(&mut self, job: &JobId) -> Option<Arc<Spool>> {
        if let Some((_, spool)) = self.held.iter().find(|(held, _)| held == job) {
            return Some(Arc::clone(spool));
        }
        let path = self.path(job)?;
        match Spool::reopen(&path) {
            Ok(spool) => {
                let spool = Arc::new(spool);
                self.hold(job.clone(), Arc::clone(&spool));
                Some(spool)
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("cannot read {}: {error}", path.display());
                }
                None
            }
        }
    }

    /// Removes what nobody may want any more, and what is too much. The file of a job under way stays.
    /// Answers whether any are left.
    pub(crate) fn expire(&mut self, limits: Limits, but: Option<&JobId>) -> bool {
        let Some(dir) = &self.dir else { return false };
        let now = SystemTime::now();
        let mut files: Vec<(SystemTime, u64, PathBuf)> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let meta = entry.metadata().ok()?;
                Some((meta.modified().unwrap_or(now), meta.len(), entry.path()))
            })
            .filter(|(_, _, path)| path.extension().is_some_and(|end| end == "log"))
            .collect();
        files.sort();
        let mut left = false;
        let mut sum: u64 = files.iter().map(|(_, size, _)| size).sum();
        for (written, size, path) in files {
            let id = path.file_stem().and_then(|name| name.to_str()).and_then(|name| JobId::new(name).ok());
            let busy = self.held.iter().any(|(held, spool)| Some(held) == id.as_ref() && spool.is_written());
            let old = now.duration_since(written).is_ok_and(|age| age >= limits.keep);
            if busy || id.as_ref().is_some_and(|id| Some(id) == but) || !(old || sum > limits.all) {
                left = true;
                continue;
            }
            sum = sum.saturating_sub(size);
            self.held.retain(|(held, _)| Some(held) != id.as_ref());
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!("cannot remove {}: {error}", path.display());
            }
        }
        left
    }

    /// Prepares a read, which blocks: run it elsewhere.
    pub(crate) fn read(&mut self, wanted: Wanted) -> impl FnOnce() -> Piece + Send + 'static {
        let spool = self.find(&wanted.job);
        move || {
            let Some(spool) = spool else { return Piece::Missing };
            match spool.read(&wanted) {
                Ok(chunk) => Piece::Read(chunk),
                Err(error) => {
                    tracing::warn!(job = %wanted.job, "cannot read kept output: {error}");
                    Piece::Missing
                }
            }
        }
    }
}

/// Told after a read that came to the end: there is more now. True: the end.
pub(crate) type Tell = Box<dyn Fn(bool) + Send + Sync>;

/// One of a command's two channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Stdout,
    Stderr,
}

impl Side {
    const fn kind(self) -> Kind {
        match self {
            Side::Stdout => Kind::Stdout,
            Side::Stderr => Kind::Stderr,
        }
    }
}

/// Where a place in the records is in each channel.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// Bytes of records before it.
    log: u64,
    /// Bytes of standard output and error before it.
    sides: [u64; 2],
}

#[derive(Debug, Default)]
struct State {
    /// The end of the last record.
    end: Mark,
    marks: Vec<Mark>,
    lost: [u64; 2],
    done: bool,
    /// Nothing more can be kept.
    full: bool,
    /// Somebody has read up to the end and wants to know when there is more.
    awaited: bool,
    looked: u64,
}

/// What one job printed.
pub(crate) struct Spool {
    file: File,
    limit: u64,
    state: Mutex<State>,
    tell: Option<Tell>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").finish_non_exhaustive()
    }
}

fn file_head(lost: [u64; 2], done: bool) -> [u8; FILE_HEAD as usize] {
    let mut bytes = [0; FILE_HEAD as usize];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&lost[0].to_be_bytes());
    bytes[16..24].copy_from_slice(&lost[1].to_be_bytes());
    bytes[24] = u8::from(done);
    bytes
}

impl Spool {
    fn create(path: &Path, limit: u64, tell: Tell) -> io::Result<Spool> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all_at(&file_head([0; 2], false), 0)?;
        Ok(Spool { file, limit, state: Mutex::default(), tell: Some(tell) })
    }

    /// A file of an earlier life: its command is gone, nothing will be added.
    fn reopen(path: &Path) -> io::Result<Spool> {
        let file = OpenOptions::new().read(true).open(path)?;
        let mut bytes = [0; FILE_HEAD as usize];
        file.read_exact_at(&mut bytes, 0)?;
        if bytes[..8] != *MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not a file of output"));
        }
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[at..at + 8]);
            u64::from_be_bytes(eight)
        };
        let mut state = State { lost: [number(8), number(16)], done: true, full: true, ..State::default() };
        let length = file.metadata()?.len().saturating_sub(FILE_HEAD);
        while let Some((kind, size)) = record_at(&file, state.end.log, length)? {
            state.advance(kind, size);
        }
        Ok(Spool { file, limit: 0, state: Mutex::new(state), tell: None })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_written(&self) -> bool {
        !self.state().done
    }

    /// Adds what was printed.
    pub(crate) fn push(&self, side: Side, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let mut state = self.state();
        if !state.full {
            if let Err(why) = self.write(&mut state, side, bytes) {
                tracing::warn!("{why}; what follows of this job's output is kept in part only");
                state.full = true;
                // A record that was written in part.
                let _ = self.file.set_len(FILE_HEAD + state.end.log);
            }
        }
        if state.full {
            state.lost[side as usize] += bytes.len() as u64;
            return;
        }
        let awaited = std::mem::take(&mut state.awaited);
        drop(state);
        if awaited {
            self.say(false);
        }
    }

    fn write(&self, state: &mut State, side: Side, bytes: &[u8]) -> Result<(), String> {
        let after = state.end.log + (HEAD + bytes.len()) as u64;
        if after > self.limit {
            return Err(format!("the limit of {} bytes is reached (output_spool_limit)", self.limit));
        }
        if after >= state.looked {
            state.looked = after + LOOK_EVERY;
            if self.is_disk_short() {
                return Err("the file system is nearly full".into());
            }
        }
        // At most what one read of a pipe gives.
        let length = u32::try_from(bytes.len()).unwrap_or(MAX_RECORD);
        let mut record = Vec::with_capacity(HEAD + bytes.len());
        record.extend_from_slice(&head(side.kind(), length));
        record.extend_from_slice(bytes);
        self.file
            .write_all_at(&record, FILE_HEAD + state.end.log)
            .map_err(|error| format!("cannot write output to the disk: {error}"))?;
        state.advance(side.kind(), length);
        Ok(())
    }

    fn is_disk_short(&self) -> bool {
        nix::sys::statvfs::fstatvfs(&self.file).is_ok_and(|fs| {
            let size = fs.fragment_size();
            let least = fs.blocks().saturating_mul(size) / 20;
            fs.blocks_available().saturating_mul(size) < least.min(MOST_FREE)
        })
    }

    /// The command has ended.
    pub(crate) fn finish(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.done, true) {
            return;
        }
        state.awaited = false;
        // Overwritten in place, so that a full disk does not matter.
        if let Err(error) = self.file.write_all_at(&file_head(state.lost, true), 0) {
            tracing::warn!("cannot write output to the disk: {error}");
        }
        drop(state);
        self.say(true);
    }

    fn say(&self, ended: bool) {
        if let Some(tell) = &self.tell {
            tell(ended);
        }
    }

    /// Reads a piece. Blocks.
    fn read(&self, wanted: &Wanted) -> io::Result<Chunk> {
        let (end, done, lost, mark) = {
            let mut state = self.state();
            let total = state.end.total(wanted.channel);
            state.awaited |= !state.done && wanted.offset >= total;
            (state.end, state.done, state.lost, state.mark_before(wanted))
        };
        let total = end.total(wanted.channel);
        let count = total.saturating_sub(wanted.offset).min(u64::from(wanted.max));
        let mut data = Vec::with_capacity(count as usize);
        match wanted.channel.kind() {
            None => {
                data.resize(count as usize, 0);
                self.file.read_exact_at(&mut data, FILE_HEAD + wanted.offset)?;
            }
            Some(kind) => self.collect(kind, mark, wanted.offset, count as usize, end, &mut data)?,
        }
        Ok(Chunk {
            job: wanted.job.clone(),
            channel: wanted.channel,
            offset: wanted.offset,
            total,
            done,
            lost: match wanted.channel {
                OutputChannel::Stdout => lost[0],
                OutputChannel::Stderr => lost[1],
                OutputChannel::Both => lost[0] + lost[1],
            },
            missing: false,
            data,
        })
    }

    /// Collects one channel out of the records.
    fn collect(
        &self,
        kind: Kind,
        mut at: Mark,
        offset: u64,
        count: usize,
        end: Mark,
        data: &mut Vec<u8>,
    ) -> io::Result<()> {
        while data.len() < count {
            let Some((found, size)) = record_at(&self.file, at.log, end.log)? else { break };
            if found == kind {
                let before = at.sides[side_of(kind)];
                // What of this record was read earlier.
                let skip = (offset + data.len() as u64).saturating_sub(before);
                if skip < u64::from(size) {
                    let take = (u64::from(size) - skip).min((count - data.len()) as u64) as usize;
                    let from = data.len();
                    data.resize(from + take, 0);
                    self.file.read_exact_at(&mut data[from..], FILE_HEAD + at.log + HEAD as u64 + skip)?;
                }
            }
            at.advance(found, size);
        }
        Ok(())
    }
}

impl Mark {
    fn total(&self, channel: OutputChannel) -> u64 {
        match channel.kind() {
            None => self.log,
            Some(kind) => self.sides[side_of(kind)],
        }
    }

    fn advance(&mut self, kind: Kind, size: u32) {
        self.log += HEAD as u64 + u64::from(size);
        self.sides[side_of(kind)] += u64::from(size);
    }
}

impl State {
    fn advance(&mut self, kind: Kind, size: u32) {
        let last = self.marks.last().map_or(0, |mark| mark.log);
        if self.end.log - last >= MARK_EVERY {
            self.marks.push(self.end);
        }
        self.end.advance(kind, size);
    }

    /// The last mark that is not behind what is wanted.
    fn mark_before(&self, wanted: &Wanted) -> Mark {
        let after = self.marks.partition_point(|mark| mark.total(wanted.channel) <= wanted.offset);
        after.checked_sub(1).and_then(|at| self.marks.get(at)).copied().unwrap_or_default()
    }
}

const fn side_of(kind: Kind) -> usize {
    match kind {
        Kind::Stderr => 1,
        Kind::KeepAlive | Kind::Stdout | Kind::Word => 0,
    }
}

/// The head of the record at a place; `None` when there is no whole one before the end.
fn record_at(file: &File, at: u64, end: u64) -> io::Result<Option<(Kind, u32)>> {
    if at + HEAD as u64 > end {
        return Ok(None);
    }
    let mut bytes = [0; HEAD];
    file.read_exact_at(&mut bytes, FILE_HEAD + at)?;
    let read = read_head(bytes).ok().filter(|(kind, _)| kind.is_output());
    Ok(read.filter(|(_, size)| at + HEAD as u64 + u64::from(*size) <= end))
}

#[cfg(test)]
mod tests;
