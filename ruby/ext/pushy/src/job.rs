//! `Pushy::JobRequest`: a job to be started, checked when it is made.

use magnus::{
    Class, Module, Object, RArray, RHash, RModule, RString, Ruby, TryConvert, Value, function, method,
};
use pushy_core::api;
use pushy_core::job::{self, JobOptions};

use crate::{convert, error};

/// Frozen by nature: it has no method that changes it.
#[magnus::wrap(class = "Pushy::JobRequest", free_immediately, size, frozen_shareable)]
pub(crate) struct JobRequest(pub(crate) job::JobRequest);

/// The options in the order in which `lib/pushy/job.rb` gives them.
type Options = (
    Option<String>,
    Option<u32>,
    bool,
    Option<Value>,
    Option<String>,
    Option<String>,
    Option<RString>,
    Option<RArray>,
);

/// Names and values from a hash, or from the text of a JSON object.
fn environment(ruby: &Ruby, env: Value) -> Result<Vec<(String, String)>, magnus::Error> {
    match RString::from_value(env) {
        Some(json) => api::env_option(&json.to_string()?).map_err(|e| error::raise(ruby, &e.context("env"))),
        None => convert::pairs(RHash::try_convert(env)?),
    }
}

fn build(
    ruby: &Ruby,
    command: String,
    nodes: Vec<String>,
    options: Options,
) -> Result<JobRequest, magnus::Error> {
    let (quorum, run_timeout, capture, env, user, dir, file, parameters) = options;
    let env = env.map(|env| environment(ruby, env)).transpose()?;
    let file = file.map(convert::bytes);
    let parameters = parameters.map(convert::pair_list).transpose()?.unwrap_or_default();
    let checked = || {
        let nodes = api::node_names(nodes)?;
        let quorum = quorum.map(|text| api::Quorum::parse(&text)).transpose()?.map(|q| q.of(nodes.len()));
        let file =
            file.map(|content| api::file_option(&content)).transpose().map_err(|e| e.context("file"))?;
        let parameters: Result<_, pushy_core::Error> =
            parameters.iter().map(|(name, value)| api::parameter(name, value)).collect();
        let parameters = parameters.and_then(api::parameters).map_err(|e| e.context("parameters"))?;
        let options = JobOptions { user, dir, env, file, capture, parameters };
        Ok(JobRequest(job::JobRequest { command, nodes, run_timeout, quorum, options }))
    };
    checked().map_err(|e| error::raise(ruby, &e))
}

impl JobRequest {
    fn command(&self) -> &str {
        &self.0.command
    }

    fn nodes(&self) -> Vec<&str> {
        self.0.nodes.iter().map(|node| node.as_str()).collect()
    }

    fn quorum(&self) -> Option<u32> {
        self.0.quorum
    }

    fn run_timeout(&self) -> Option<u32> {
        self.0.run_timeout
    }

    fn capture(&self) -> bool {
        self.0.options.capture
    }
}

pub(crate) fn init(ruby: &Ruby, module: RModule) -> Result<(), magnus::Error> {
    let class = module.define_class("JobRequest", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("build", function!(build, 3))?;
    class.define_method("command", method!(JobRequest::command, 0))?;
    class.define_method("nodes", method!(JobRequest::nodes, 0))?;
    class.define_method("quorum", method!(JobRequest::quorum, 0))?;
    class.define_method("run_timeout", method!(JobRequest::run_timeout, 0))?;
    class.define_method("capture?", method!(JobRequest::capture, 0))?;
    Ok(())
}
