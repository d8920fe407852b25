//! A real node client: our agent as a process.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use pushy_tests::{Process, bin_dir};

use crate::target::{NODE_KEY, Target, private_key};

/// What every agent here may run, as its configuration says it.
const WHITELIST: &str = "
  'succeed' => 'true',
  'fail' => 'exit 3',
  'sleep 1' => 'sleep 1',
  'sleep 2' => 'sleep 2',
  'sleep long' => 'sleep 60',
  'both' => 'printf out; printf err >&2',
  'both and fail' => 'printf out; printf err >&2; exit 3',
  'out' => 'printf out',
  'err' => 'printf err >&2',
  'who' => 'id -un; pwd; echo $COLOUR',
  'id' => 'echo $CHEF_PUSH_JOB_ID $CHEF_PUSH_NODE_NAME',
  'file' => 'cat $CHEF_PUSH_JOB_FILE; echo; echo $CHEF_PUSH_JOB_FILE',
";

/// The file that the command `until told` waits for.
const TOLD: &str = "told";

/// A node with its agent.
pub(crate) struct Agent {
    pub(crate) name: String,
    config: PathBuf,
    log: PathBuf,
    process: Option<Process>,
}

impl Agent {
    /// A new node that is available.
    pub(crate) fn online(t: &Target, name: &str) -> Agent {
        Agent::with(t, name, "")
    }

    /// The same with more entries of its whitelist, written as in its file.
    pub(crate) fn with(t: &Target, name: &str, entries: &str) -> Agent {
        t.site().people().add_nodes(&t.org, &[name]);
        let folder = t.site().folder(&format!("{}-{name}", t.org));
        let key = folder.join("client.pem");
        fs::write(&key, private_key(NODE_KEY)).expect("the key is written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("it is ours");
        // A job's user must get through to its file.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o711)).expect("it is ours");
        let text = format!(
            "chef_server_url 'http://{}/organizations/{}'\nnode_name '{name}'\nclient_key '{}'\nkill_grace 0.2\n\
             state_dir '{}'\nfile_dir '{}'\nwhitelist({{{WHITELIST}{entries}\n  \
             'until told' => 'until [ -e {} ]; do sleep 0.05; done',\n}})\n",
            t.place().address,
            t.org,
            key.display(),
            folder.join("state").display(),
            folder.join("files").display(),
            folder.join(TOLD).display(),
        );
        let config = folder.join("push-jobs-client.rb");
        fs::write(&config, text).expect("the configuration is written");
        let mut agent = Agent { name: name.to_owned(), config, log: folder.join("log"), process: None };
        agent.start();
        t.check_state(name, "online", "available");
        agent
    }

    /// Where it keeps files of jobs.
    pub(crate) fn files(&self) -> PathBuf {
        self.config.with_file_name("files")
    }

    /// Ends the command `until told`.
    pub(crate) fn tell(&self) {
        fs::write(self.config.with_file_name(TOLD), "").expect("the file is made");
    }

    /// Starts it, again after [`Agent::kill`].
    pub(crate) fn start(&mut self) {
        let mut command = Command::new(bin_dir().join("push-jobs-client"));
        command.arg("-c").arg(&self.config).args(["-l", "info"]);
        let started = Process::start(&self.name, &self.log, &mut command).expect("push-jobs-client starts");
        self.process = Some(started);
    }

    /// KILL.
    pub(crate) fn kill(&mut self) {
        self.process.as_mut().expect("it runs").kill();
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// What it has logged.
    pub(crate) fn output(&self) -> String {
        self.process.as_ref().expect("it runs").output()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // TERM ends its job too; what does not end is killed when the process is dropped.
        if let Some(process) = &mut self.process
            && !std::thread::panicking()
            && process.is_running()
        {
            process.signal(Signal::SIGCONT);
            process.stop();
        }
    }
}
