//! The JSON of a job as REST answers show it (2.4.3, 2.4.5).

use super::{Job, NodeStatus};
use crate::json::{Object, write};

impl Job {
    /// The answer of `GET jobs/ID`: `nodes` first, by status and in the order asked for; `file` itself only on request.
    pub fn to_json(&self, include_file: bool) -> String {
        self.whole(include_file, false)
    }

    /// The same with `detail=1` (decision 20): who started the job, the quorum it has or had to reach, why nodes did not do
    /// their part, and how many nodes there are in each status.
    pub fn to_detail_json(&self, include_file: bool) -> String {
        self.whole(include_file, true)
    }

    fn whole(&self, include_file: bool, detail: bool) -> String {
        let mut nodes = Vec::with_capacity(32 + self.nodes.len() * 24);
        nodes.push(b'{');
        for status in NodeStatus::ALL {
            let mut of_status = self.nodes.iter().filter(|(_, s)| s == status).map(|(name, _)| name.as_str());
            let Some(first) = of_status.next() else { continue };
            if nodes.len() > 1 {
                nodes.push(b',');
            }
            write(&mut nodes, status.as_str());
            nodes.extend_from_slice(b":[");
            write(&mut nodes, first);
            for name in of_status {
                nodes.push(b',');
                write(&mut nodes, name);
            }
            nodes.push(b']');
        }
        nodes.push(b'}');
        let mut object = Object::with_capacity(nodes.len() + 400);
        object.raw("nodes", &nodes);
        self.members(&mut object, include_file);
        if detail {
            object.member("requester", &self.requester).member("quorum", &self.quorum);
            if let Some(parameters) = &self.options.parameters {
                object.strings("parameters", parameters);
            }
            object.raw("reasons", &self.reasons_json()).raw("counts", &self.counts_json());
        }
        object.end_text()
    }

    /// By node, in the order asked for.
    fn reasons_json(&self) -> Vec<u8> {
        let mut text = vec![b'{'];
        for (name, _) in &self.nodes {
            let Some(reason) = self.reasons.get(name) else { continue };
            if text.len() > 1 {
                text.push(b',');
            }
            write(&mut text, name.as_str());
            text.push(b':');
            text.extend_from_slice(&reason.to_json());
        }
        text.push(b'}');
        text
    }

    fn counts_json(&self) -> Vec<u8> {
        let mut object = Object::with_capacity(64);
        for status in NodeStatus::ALL {
            let count = self.nodes.iter().filter(|(_, s)| s == status).count();
            if count > 0 {
                object.member(status.as_str(), &count);
            }
        }
        object.end()
    }

    /// An element of the answer of `GET jobs`: the same without `nodes`.
    pub fn to_list_json(&self) -> String {
        let mut object = Object::with_capacity(400);
        self.members(&mut object, false);
        object.end_text()
    }

    fn members(&self, object: &mut Object, include_file: bool) {
        object
            .plain("id", self.id.as_str())
            .member("command", &self.command)
            .plain("status", self.status.as_str())
            .member("run_timeout", &self.run_timeout)
            .plain("created_at", &self.created_at.rfc1123())
            .plain("updated_at", &self.updated_at.rfc1123());
        let options = &self.options;
        if let Some(user) = &options.user {
            object.member("user", user);
        }
        if let Some(dir) = &options.dir {
            object.member("dir", dir);
        }
        if let Some(env) = &options.env {
            object.strings("env", env);
        }
        if options.capture {
            object.raw("capture_output", b"true");
        }
        match &options.file {
            Some(file) if include_file => {
                object.member("file", file);
            }
            Some(_) => {
                object.raw("file_specified", b"true");
            }
            None => {}
        }
    }
}
