//! The messages of extension `output`: `output_request` and `output_chunk` (decision 37).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::MapAccess;
use serde_json::{Map, Value};

use super::from_node::Member;
use super::{JobRef, NodeMessage};
use crate::ids::JobId;
use crate::json::Object;
use crate::output::{Chunk, MAX_CHUNK, MAX_WAIT, OutputChannel, Wanted};

pub(super) fn encode_request(wanted: &Wanted, object: &mut Object) {
    object
        .plain("type", "output_request")
        .plain("job_id", wanted.job.as_str())
        .plain("channel", wanted.channel.as_str())
        .member("offset", &wanted.offset)
        .member("max", &wanted.max)
        .member("wait", &wanted.wait);
}

/// Reads a request; `None` when a member is missing or wrong. `max` and `wait` are brought within their bounds.
pub(super) fn wanted(members: &Map<String, Value>, job: Option<JobId>) -> Option<Wanted> {
    let number = |name: &str| members.get(name).and_then(Value::as_u64);
    let within = |value: u64, most: u32| u32::try_from(value).unwrap_or(most).min(most);
    Some(Wanted {
        job: job?,
        channel: members.get("channel").and_then(Value::as_str).and_then(OutputChannel::from_text)?,
        offset: number("offset")?,
        max: within(number("max").filter(|max| *max > 0)?, MAX_CHUNK),
        wait: within(number("wait").unwrap_or(0), MAX_WAIT),
    })
}

pub(super) fn encode_chunk(chunk: &Chunk, object: &mut Object) {
    object
        .plain("job_id", chunk.job.as_str())
        .plain("channel", chunk.channel.as_str())
        .member("offset", &chunk.offset)
        .member("total", &chunk.total)
        .member("done", &chunk.done);
    if chunk.lost > 0 {
        object.member("lost", &chunk.lost);
    }
    if chunk.missing {
        object.member("missing", &true);
    }
    object.plain("data", &STANDARD.encode(&chunk.data));
}

/// The members that only a piece has.
#[derive(Default)]
pub(super) struct Members<'a> {
    channel: Option<Member<'a>>,
    offset: Option<Member<'a>>,
    total: Option<Member<'a>>,
    done: Option<Member<'a>>,
    lost: Option<Member<'a>>,
    missing: Option<Member<'a>>,
    data: Option<Member<'a>>,
}

#[derive(Clone, Copy)]
pub(super) enum Name {
    Channel,
    Offset,
    Total,
    Done,
    Lost,
    Missing,
    Data,
}

impl Name {
    pub(super) fn of(name: &str) -> Option<Name> {
        Some(match name {
            "channel" => Name::Channel,
            "offset" => Name::Offset,
            "total" => Name::Total,
            "done" => Name::Done,
            "lost" => Name::Lost,
            "missing" => Name::Missing,
            "data" => Name::Data,
            _ => return None,
        })
    }
}

impl<'de> Members<'de> {
    pub(super) fn read<A: MapAccess<'de>>(&mut self, name: Name, map: &mut A) -> Result<(), A::Error> {
        let place = match name {
            Name::Channel => &mut self.channel,
            Name::Offset => &mut self.offset,
            Name::Total => &mut self.total,
            Name::Done => &mut self.done,
            Name::Lost => &mut self.lost,
            Name::Missing => &mut self.missing,
            Name::Data => &mut self.data,
        };
        let value = map.next_value()?;
        place.get_or_insert(value);
        Ok(())
    }
}

/// The message; one that cannot be used is of an unknown type.
pub(super) fn chunk(job: JobRef, members: Members<'_>) -> NodeMessage {
    match read_chunk(job, members) {
        Some(chunk) => NodeMessage::OutputChunk(Box::new(chunk)),
        None => NodeMessage::Unknown { name: "output_chunk".into() },
    }
}

fn read_chunk(job: JobRef, members: Members<'_>) -> Option<Chunk> {
    let JobRef::Id(job) = job else { return None };
    let number = |member: Option<Member<'_>>| match member {
        Some(Member::Number(number)) => Some(number),
        _ => None,
    };
    let Some(Member::Text(channel)) = members.channel else { return None };
    let Some(Member::Text(data)) = members.data else { return None };
    let (offset, total) = (number(members.offset)?, number(members.total)?);
    let data = STANDARD.decode(data.as_bytes()).ok()?;
    let end = offset.checked_add(data.len() as u64)?;
    // More than was asked for, or beyond the end it names: not to be believed.
    if data.len() > MAX_CHUNK as usize || (!data.is_empty() && end > total) {
        return None;
    }
    let flag = |member: Option<Member<'_>>| matches!(member, Some(Member::True));
    Some(Chunk {
        job,
        channel: OutputChannel::from_text(&channel)?,
        offset,
        total,
        done: flag(members.done),
        lost: number(members.lost).unwrap_or(0),
        missing: flag(members.missing),
        data,
    })
}
