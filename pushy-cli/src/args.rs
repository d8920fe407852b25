//! Options and help: knife-push's words (10.2, 10.4), and some of our own.

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use pushy_core::present::Format;

const AFTER: &str = "\
Configuration is that of knife: ~/.chef/credentials with its profiles, then config.rb or
knife.rb (read, not run: literals only), then PUSHY_SERVER_URL, PUSHY_USER and PUSHY_KEY,
then the options.

Exit status:
    0  every node succeeded; or the job was started, with --nowait
    1  usage, a bad value, nothing started
    2  interrupted; the job goes on
   20  complete, some node did not succeed
   21  too few nodes were ready (quorum_failed)
   22  timed out
   23  aborted: cancelled
   24  crashed: given up by the server
  100  HTTP, signature or connection

-F json and -F yaml print one document on standard output, whatever happens; of a failure it is
{\"error\": {\"message\": TEXT, \"exit_status\": N}}.";

/// Start commands on many nodes at once and see what becomes of them
#[derive(Debug, Parser)]
#[command(name = "pushy", version, after_long_help = AFTER, disable_help_subcommand = true,
    disable_version_flag = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    /// Print the version
    #[arg(short = 'v', long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Clone, ClapArgs)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Global {
    /// Configuration file, in place of the one that would be found
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) config: Option<String>,
    /// Profile of ~/.chef/credentials
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) profile: Option<String>,
    /// Name to sign requests as
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// File with the key to sign requests with
    #[arg(short, long, global = true, value_name = "FILE")]
    pub(crate) key: Option<String>,
    /// Server, with the organization: https://HOST/organizations/ORG
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server_url: Option<String>,
    /// Form of the output; json and yaml give one document on standard output and everything else on standard error
    #[arg(short = 'F', long, global = true, value_name = "FORMAT",
          value_parser = PossibleValuesParser::new(Format::NAMES))]
    pub(crate) format: Option<String>,
    /// Paint keys although the output is no terminal
    #[arg(long, global = true, overrides_with = "no_color")]
    pub(crate) color: bool,
    /// Paint nothing
    #[arg(long, global = true, overrides_with = "color")]
    pub(crate) no_color: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start jobs and look at them
    #[command(arg_required_else_help = true)]
    Job {
        #[command(subcommand)]
        verb: JobVerb,
    },
    /// See which nodes can take a job
    #[command(arg_required_else_help = true)]
    Node {
        #[command(subcommand)]
        verb: NodeVerb,
    },
    /// Find nodes by a query: search 'role:web AND NOT chef_environment:prod'
    Search(Search),
    /// Print a completion script, for example: pushy completions bash > /etc/bash_completion.d/pushy
    Completions {
        /// For which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobVerb {
    /// Start a command of the nodes' whitelists and wait until it has ended everywhere
    Start(Box<Start>),
    /// List the jobs of the organization, oldest first
    List(List),
    /// Show one job and what became of it on each node
    Status(Status),
    /// Wait until a job has ended, whoever started it, and end as `job start` does
    Watch(Watch),
    /// Cancel a job, or end it on some of its nodes
    Cancel(Cancel),
    /// Print what a job's command wrote, exactly; only of jobs started with --capture
    Output(Output),
}

#[derive(Debug, Subcommand)]
pub(crate) enum NodeVerb {
    /// Print a line for each node: its name, a tab, available or unavailable
    Status(NodeStatus),
    /// List the names of the nodes
    List,
    /// Show what a node is
    Show(Show),
}

const START_AFTER: &str = "\
Examples:
  pushy job start chef-client web-01 web-02
  pushy job start -q 90% --timeout 600 --capture 'restart nginx' @web-nodes.txt
  pushy job start -s 'role:web AND chef_environment:prod' chef-client
  pushy job start chef-client --from-job 6e0b432e369904e76de6e95bac99c9e6 --where failed,timed_out
  pushy -F json job start chef-client web-01 | jq .nodes

Every option can be preset in the configuration: knife[:quorum] = '90%',
knife[:poll_interval] = 5, knife[:lenient_exit] = true and so on.";

#[derive(Debug, ClapArgs)]
#[command(after_help = START_AFTER)]
pub(crate) struct Start {
    /// Name of the command in the nodes' whitelists
    pub(crate) command: Option<String>,
    /// Nodes to run it on; @FILE reads names from a file, - from standard input, one a line
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
    /// Nodes to run it on, by a query of the Chef server's search
    #[arg(short, long, value_name = "QUERY")]
    pub(crate) search: Option<String>,
    /// Nodes to run it on: those of an earlier job on which it did not succeed, or those of --where
    #[arg(long, value_name = "ID", conflicts_with_all = ["search", "nodes"])]
    pub(crate) from_job: Option<String>,
    /// Which nodes of --from-job, by status: failed,timed_out,unavailable [default: all that ended without success, which
    /// are failed, aborted, unavailable, nacked, was_ready, crashed and timed_out]
    #[arg(long = "where", value_name = "STATUSES")]
    pub(crate) statuses: Option<String>,
    /// How many nodes must be ready for the job to run: a number or a percentage [default: 100%]
    #[arg(short, long, value_name = "QUORUM")]
    pub(crate) quorum: Option<String>,
    /// Seconds after which the nodes stop the command [default: the server's, 3600]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<String>,
    /// File to hand to the command, which finds its path in CHEF_PUSH_JOB_FILE; at most 100,000 bytes
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<String>,
    /// Keep standard output and error for `job output`, and print them as they come
    #[arg(long)]
    pub(crate) capture: bool,
    /// With --capture: do not print what the commands print while they run
    #[arg(long, visible_alias = "quiet")]
    pub(crate) no_stream: bool,
    /// Environment of the command, as a JSON object: '{"STAGE": "prod"}'
    #[arg(long, value_name = "JSON")]
    pub(crate) with_env: Option<String>,
    /// A parameter that the nodes' whitelists declare for the command; may be given more than once
    #[arg(short = 'p', long = "param", value_name = "NAME=VALUE")]
    pub(crate) parameters: Vec<String>,
    /// User to run the command as
    #[arg(long, value_name = "USER")]
    pub(crate) as_user: Option<String>,
    /// Directory to run the command in
    #[arg(long, value_name = "DIR")]
    pub(crate) in_dir: Option<String>,
    /// Do not wait: print the id and end
    #[arg(short = 'b', long)]
    pub(crate) nowait: bool,
    /// Longest pause between two looks at the job, on a server without event feeds [default: 1.0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) poll_interval: Option<String>,
    /// Original exit status: 0 when complete and every node succeeded, refused or was unavailable, else 1
    #[arg(long)]
    pub(crate) lenient_exit: bool,
    /// Do not ask at Ctrl-C: leave the job running and end with 2
    #[arg(long)]
    pub(crate) detach_on_interrupt: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Watch {
    /// The job's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Longest pause between two looks at the job, on a server without event feeds [default: 1.0]
    #[arg(long, value_name = "SECONDS")]
    pub(crate) poll_interval: Option<String>,
    /// Original exit status: 0 when complete and every node succeeded, refused or was unavailable, else 1
    #[arg(long)]
    pub(crate) lenient_exit: bool,
    /// Do not ask at Ctrl-C: leave the job running and end with 2
    #[arg(long)]
    pub(crate) detach_on_interrupt: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Cancel {
    /// The job's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Only on these nodes; the job goes on without them. @FILE and - as in `job start`
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct List {
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Status {
    /// The job's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Output {
    /// The job's id
    #[arg(value_name = "ID")]
    pub(crate) id: String,
    /// Whose output; several are printed one after the other under a line with the name; @FILE and - as in `job start`
    #[arg(value_name = "NODE", required_unless_present = "all_nodes")]
    pub(crate) nodes: Vec<String>,
    /// The output of every node that has run the command, or runs it
    #[arg(long, conflicts_with = "nodes")]
    pub(crate) all_nodes: bool,
    /// stdout, stderr or both; what the command wrote to its standard error goes to standard error with both
    #[arg(long, default_value = "stdout", value_name = "CHANNEL")]
    pub(crate) channel: String,
    /// Print what there is, then what comes until the commands end; of several nodes lines under their names
    #[arg(short, long)]
    pub(crate) follow: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeStatus {
    /// Only these; a name with a colon is a query of the Chef server's search; @FILE and - as in `job start`
    #[arg(value_name = "NODE")]
    pub(crate) nodes: Vec<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Show {
    /// The node's name
    #[arg(value_name = "NODE")]
    pub(crate) node: String,
    /// Only this attribute, with dots: push_jobs.whitelist; may be given several times
    #[arg(short, long = "attribute", value_name = "ATTR")]
    pub(crate) attributes: Vec<String>,
    /// Everything that is known
    #[arg(short, long)]
    pub(crate) long: bool,
}

const SEARCH_AFTER: &str = "\
A word without a field is looked for in names, tags and roles. Values are compared without
case; * and ? stand for other characters; [a TO b] is a range. Exit status 1: nothing found.

Examples:
  pushy search 'name:*tomcat*' -a push_jobs.whitelist
  pushy search 'role:web AND NOT chef_environment:prod' -i";

#[derive(Debug, ClapArgs)]
#[command(after_help = SEARCH_AFTER)]
pub(crate) struct Search {
    /// What to look for
    pub(crate) query: String,
    /// Only this attribute, with dots: push_jobs.whitelist; may be given several times
    #[arg(short, long = "attribute", value_name = "ATTR")]
    pub(crate) attributes: Vec<String>,
    /// Only the names
    #[arg(short, long)]
    pub(crate) id_only: bool,
    /// First node wanted
    #[arg(short = 'b', long, value_name = "N", default_value_t = 0)]
    pub(crate) start: u64,
    /// Only so many
    #[arg(short = 'R', long, value_name = "N")]
    pub(crate) rows: Option<u32>,
}
