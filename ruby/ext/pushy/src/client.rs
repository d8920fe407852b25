//! `Pushy::Client`: the REST client, blocking, without the global lock.

use std::path::PathBuf;
use std::time::Duration;

use magnus::{
    Class, IntoValue, Module, Object, RArray, RHash, RModule, RString, Ruby, TryConvert, Value, function,
    method,
};
use pushy_core::api::{Channel, JobView, NodeState, Statuses, V1_NOTICE, node_names};
use pushy_core::auth::{SigningKey, Version};
use pushy_core::client::blocking::{self, CancelToken, Operation};
use pushy_core::client::{OutputEvent, Progress, ProxySettings, Settings, TlsSettings};
use pushy_core::ids::{JobId, NodeName};
use pushy_core::output::OutputChannel;
use pushy_core::present::{self, Screen, progress_line};
use pushy_core::time::Millis;
use pushy_core::watch::{Exit, WatchOptions};
use pushy_core::{Error, ErrorCode};

use crate::job::JobRequest;
use crate::{convert, error, gvl};

/// Usable from several threads at once and after a fork.
#[magnus::wrap(class = "Pushy::Client", free_immediately, size)]
struct Client(blocking::Client);

/// A member of the settings that `lib/pushy/client.rb` gives; nil counts as not given.
fn given<T: TryConvert>(settings: RHash, name: &str) -> Result<Option<T>, magnus::Error> {
    settings.lookup2::<_, _, Option<T>>(Ruby::get_with(settings).to_symbol(name), None::<Value>)
}

fn connect(ruby: &Ruby, server_url: String, user: String, settings: RHash) -> Result<Client, magnus::Error> {
    let path = |name: &str| Ok::<_, magnus::Error>(given::<String>(settings, name)?.map(PathBuf::from));
    let mut wanted = Settings::new(server_url, user);
    wanted.tls = TlsSettings {
        no_verify: given(settings, "ssl_verify")? == Some(false),
        ca_path: path("ca_path")?,
        ca_file: path("ca_file")?,
        env_cert_file: path("env_cert_file")?,
        trusted_certs_dir: path("trusted_certs_dir")?,
        client_cert: path("client_cert")?,
        client_key: path("client_key")?,
    };
    wanted.proxy = ProxySettings {
        http: given(settings, "http_proxy")?,
        https: given(settings, "https_proxy")?,
        no_proxy: given(settings, "no_proxy")?,
    };
    if let Some(seconds) = given::<f64>(settings, "timeout")? {
        wanted.timeout = Duration::from_millis(convert::millis(ruby, "timeout", seconds)?);
    }
    if let Some(retries) = given(settings, "retries")? {
        wanted.retries = retries;
    }
    let key = given::<RString>(settings, "key")?.map(convert::bytes);
    let key_file = given::<String>(settings, "key_file")?;
    let version = given::<String>(settings, "auth_version")?;
    let connected = || {
        if let Some(version) = version {
            wanted.auth_version = Version::from_text(&version)?;
        }
        let (pem, source) = match (key, key_file) {
            (Some(pem), source) => (pem, source.unwrap_or_else(|| "the key given".to_owned())),
            (None, Some(file)) => {
                let unreadable = |e: std::io::Error| {
                    // Without "(os error 2)", which tells nobody anything.
                    let reason = e.to_string();
                    let reason = reason.split(" (os error").next().unwrap_or_default();
                    Error::new(ErrorCode::InvalidKey, format!("cannot read the key {file}: {reason}"))
                };
                (std::fs::read(&file).map_err(unreadable)?, file)
            }
            (None, None) => return blocking::Client::new(wanted),
        };
        let key = SigningKey::from_pem(pem).map_err(|e| e.context(&source))?;
        blocking::Client::new(wanted.with_key(key, source))
    };
    connected().map(Client).map_err(|e| error::raise(ruby, &e))
}

/// Runs a call to its end; Ruby may interrupt it between slices.
fn run<T: Send>(ruby: &Ruby, begun: pushy_core::Result<Operation<T>>) -> Result<T, magnus::Error> {
    let mut operation = begun.map_err(|e| error::raise(ruby, &e))?;
    let outcome = gvl::without_gvl(ruby, |slice, wanted| {
        operation.run_for(slice, wanted).filter(|result| !is_interrupted(wanted, result.as_ref().err()))
    })?;
    outcome.map_err(|e| error::raise(ruby, &e))
}

/// Whether Ruby wanted the thread back, which is no result: the operation goes on if Ruby then has nothing to raise.
fn is_interrupted(wanted: &CancelToken, error: Option<&Error>) -> bool {
    wanted.is_cancelled() && error.is_some_and(|e| e.code() == ErrorCode::Interrupted)
}

fn job_id(ruby: &Ruby, text: &str) -> Result<JobId, magnus::Error> {
    JobId::new(text).map_err(|e| error::raise(ruby, &e.context(format!("{text:?}"))))
}

fn node_name(ruby: &Ruby, text: &str) -> Result<NodeName, magnus::Error> {
    NodeName::new(text).map_err(|e| error::raise(ruby, &e.context(format!("{text:?}"))))
}

fn job_document(ruby: &Ruby, job: &JobView) -> Result<Value, magnus::Error> {
    convert::document(ruby, &present::job_document(job.document()))
}

fn state(ruby: &Ruby, state: &NodeState) -> Result<RHash, magnus::Error> {
    let hash = ruby.hash_new();
    hash.aset("node_name", state.node_name.as_str())?;
    if let Some(status) = &state.status {
        hash.aset("status", status.as_str())?;
    }
    hash.aset("availability", state.availability.as_str())?;
    Ok(hash)
}

/// Passes output to the block, with the lock held; answers whether all of it could be had.
fn tell_output(ruby: &Ruby, begun: pushy_core::Result<blocking::Outputs>) -> Result<bool, magnus::Error> {
    let mut outputs = begun.map_err(|e| error::raise(ruby, &e))?;
    let mut whole = true;
    loop {
        let event = gvl::without_gvl(ruby, |slice, wanted| {
            outputs.next_within(slice, wanted).filter(|event| match event {
                OutputEvent::Failed(error) => !is_interrupted(wanted, Some(error)),
                _ => true,
            })
        })?;
        let (kind, text) = match event {
            OutputEvent::Over => return Ok(whole),
            OutputEvent::Bytes { stderr, bytes } => {
                (if stderr { "stderr" } else { "stdout" }, ruby.str_from_slice(&bytes))
            }
            OutputEvent::Notice(text) => ("notice", ruby.str_new(&text)),
            OutputEvent::Failed(error) => {
                whole = false;
                ("error", ruby.str_new(error.message()))
            }
        };
        if ruby.block_given() {
            ruby.yield_values::<_, Value>((ruby.to_symbol(kind), text))?;
        }
    }
}

impl Client {
    /// The job's id, the line that says so, and what to warn of.
    fn start(
        ruby: &Ruby,
        this: &Client,
        request: &JobRequest,
    ) -> Result<(String, String, Option<&'static str>), magnus::Error> {
        let job = request.0.clone();
        let started = run(ruby, this.0.begin(|client| async move { client.start_job(&job).await }))?;
        Ok((started.id.as_str().to_owned(), started.line(), started.v1.then_some(V1_NOTICE)))
    }

    fn jobs(ruby: &Ruby, this: &Client) -> Result<RArray, magnus::Error> {
        let jobs = run(ruby, this.0.begin(|client| async move { client.jobs().await }))?;
        let array = ruby.ary_new_capa(jobs.len());
        for job in &jobs {
            array.push(convert::document(ruby, job.document())?)?;
        }
        Ok(array)
    }

    fn job(ruby: &Ruby, this: &Client, id: String) -> Result<Value, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let job = run(ruby, this.0.begin(|client| async move { client.job(&id).await }))?;
        job_document(ruby, &job)
    }

    fn output(
        ruby: &Ruby,
        this: &Client,
        id: String,
        node: String,
        channel: String,
    ) -> Result<RString, magnus::Error> {
        let (id, node) = (job_id(ruby, &id)?, node_name(ruby, &node)?);
        let channel = Channel::parse(&channel).map_err(|e| error::raise(ruby, &e))?;
        let bytes =
            run(ruby, this.0.begin(move |client| async move { client.output(&id, &node, channel).await }))?;
        Ok(ruby.str_from_slice(&bytes))
    }

    fn printed(ruby: &Ruby, this: &Client, id: String) -> Result<Vec<String>, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let job = run(ruby, this.0.begin(|client| async move { client.job(&id).await }))?;
        Ok(job.nodes_with_output(false).iter().map(ToString::to_string).collect())
    }

    /// What nodes print, to the block, with the lock held: `:stdout` or `:stderr` with bytes, `:notice` or `:error` with a
    /// line. No names: every node that has printed something. Answers whether all of it could be had.
    fn stream(
        ruby: &Ruby,
        this: &Client,
        id: String,
        names: Vec<String>,
        channel: String,
        follow: bool,
    ) -> Result<bool, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let channel = OutputChannel::parse(&channel).map_err(|e| error::raise(ruby, &e))?;
        let mut nodes = names.iter().map(|name| node_name(ruby, name)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            let of = id.clone();
            let job = run(ruby, this.0.begin(|client| async move { client.job(&of).await }))?;
            nodes = job.nodes_with_output(follow);
        }
        tell_output(ruby, this.0.stream_outputs(&id, &nodes, channel, follow))
    }

    fn live(ruby: &Ruby, this: &Client, id: String, names: Vec<String>) -> Result<bool, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let nodes = names.iter().map(|name| node_name(ruby, name)).collect::<Result<Vec<_>, _>>()?;
        tell_output(ruby, this.0.stream_live(&id, &nodes))
    }

    fn node_states(ruby: &Ruby, this: &Client) -> Result<RArray, magnus::Error> {
        let states = run(ruby, this.0.begin(|client| async move { client.node_states().await }))?;
        let array = ruby.ary_new_capa(states.len());
        for one in &states {
            array.push(state(ruby, one)?)?;
        }
        Ok(array)
    }

    fn node_state(ruby: &Ruby, this: &Client, node: String) -> Result<RHash, magnus::Error> {
        let node = node_name(ruby, &node)?;
        let one = run(ruby, this.0.begin(|client| async move { client.node_state(&node).await }))?;
        state(ruby, &one)
    }

    /// The names of the nodes on which something was cancelled.
    fn cancel(
        ruby: &Ruby,
        this: &Client,
        id: String,
        nodes: Option<RArray>,
    ) -> Result<Vec<String>, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let nodes = nodes
            .map(|nodes| node_names(nodes.to_vec::<String>()?).map_err(|e| error::raise(ruby, &e)))
            .transpose()?;
        let call = this.0.begin(|client| async move { client.cancel_job(&id, nodes.as_deref()).await });
        Ok(run(ruby, call)?.nodes)
    }

    /// The names of a job's nodes in these statuses.
    fn nodes_of_job(
        ruby: &Ruby,
        this: &Client,
        id: String,
        statuses: Option<String>,
    ) -> Result<Vec<String>, magnus::Error> {
        let id = job_id(ruby, &id)?;
        let statuses = statuses.as_deref().map(Statuses::parse).transpose();
        let statuses = statuses.map_err(|e| error::raise(ruby, &e))?.unwrap_or_default();
        let nodes =
            run(ruby, this.0.begin(|client| async move { client.nodes_of_job(&id, &statuses).await }))?;
        Ok(nodes.iter().map(|node| node.as_str().to_owned()).collect())
    }

    /// Waits for a job's end; what happens meanwhile goes to the block, with the lock held. Answers the job, its exit
    /// code and the one by the original's rule. `screen`: columns and colour of the line that is rewritten in place.
    fn watch(
        ruby: &Ruby,
        this: &Client,
        id: String,
        (poll_interval, patience): (f64, f64),
        (columns, colour): (Option<usize>, bool),
        joined: bool,
    ) -> Result<(Value, u8, u8), magnus::Error> {
        let id = job_id(ruby, &id)?;
        let screen = Screen { columns, colour };
        let options = WatchOptions {
            poll_interval: Millis(convert::millis(ruby, "poll_interval", poll_interval)?),
            patience: Millis(convert::millis(ruby, "patience", patience)?),
            tallies: columns.is_some(),
            joined,
            ..WatchOptions::default()
        };
        let mut wait = this.0.wait(id, options).map_err(|e| error::raise(ruby, &e))?;
        let tell = |kind: &str, text: Option<String>| -> Result<(), magnus::Error> {
            if ruby.block_given() {
                ruby.yield_values::<_, Value>((ruby.to_symbol(kind), text))?;
            }
            Ok(())
        };
        loop {
            let progress = gvl::without_gvl(ruby, |slice, wanted| {
                wait.next_within(slice, wanted).filter(|progress| match progress {
                    Progress::GivenUp(error) => !is_interrupted(wanted, Some(error)),
                    _ => true,
                })
            })?;
            match progress {
                Progress::Tally(tally) => tell("progress", Some(progress_line(&tally, screen)))?,
                Progress::Line(line) => tell("line", Some(line))?,
                Progress::Notice(text) => tell("notice", Some(text))?,
                Progress::GivenUp(error) => return Err(error::raise(ruby, &error)),
                Progress::Finished(job) => {
                    let codes = [false, true].map(|lenient| Exit::of_job(&job, lenient).code());
                    return Ok((job_document(ruby, &job)?, codes[0], codes[1]));
                }
            }
        }
    }

    fn inspect(ruby: &Ruby, _this: &Client) -> Value {
        ruby.str_new("#<Pushy::Client>").into_value_with(ruby)
    }
}

pub(crate) fn init(ruby: &Ruby, module: RModule) -> Result<(), magnus::Error> {
    let class = module.define_class("Client", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("connect", function!(connect, 3))?;
    class.define_private_method("start", method!(Client::start, 1))?;
    class.define_private_method("fetch_output", method!(Client::output, 3))?;
    class.define_private_method("printed", method!(Client::printed, 1))?;
    class.define_private_method("live", method!(Client::live, 2))?;
    class.define_private_method("stream", method!(Client::stream, 4))?;
    class.define_private_method("watch", method!(Client::watch, 4))?;
    class.define_private_method("cancel", method!(Client::cancel, 2))?;
    class.define_private_method("select_nodes", method!(Client::nodes_of_job, 2))?;
    class.define_method("jobs", method!(Client::jobs, 0))?;
    class.define_method("job", method!(Client::job, 1))?;
    class.define_method("node_states", method!(Client::node_states, 0))?;
    class.define_method("node_state", method!(Client::node_state, 1))?;
    class.define_method("inspect", method!(Client::inspect, 0))?;
    Ok(())
}
