# frozen_string_literal: true

require "timeout"

RSpec.describe Chef::Knife::JobStart do
  let(:id) { "6e0b432e369904e76de6e95bac99c9e6" }
  let(:job) { { "id" => id, "status" => "complete" } }
  let(:outcome) { Pushy::Outcome.new(job, 20, 0) }

  def start(*args, terminal: false, **settings)
    run_command(described_class, args, settings, terminal: terminal)
  end

  def request
    pushy_calls.find { |call| call.first == :start_job }.last
  end

  before { pushy_answers(start_job: id, wait: outcome, stream_live: true) }

  describe "what it asks for" do
    it "gives the names, the quorum of 100% and no environment when nothing else is said" do
      start("chef-client", "web1", "web2")
      expect(request).to eq(command: "chef-client", nodes: %w[web1 web2], quorum: "100%", capture: false)
    end

    {
      { quorum: "50%" } => { quorum: "50%" },
      { run_timeout: "60" } => { run_timeout: 60 },
      { run_timeout: "010" } => { run_timeout: 10 },
      { run_timeout: 60 } => { run_timeout: 60 },
      { capture_output: true } => { capture: true },
      { with_env: '{"A":"1"}' } => { env: '{"A":"1"}' },
      { as_user: "deploy", in_dir: "/srv" } => { user: "deploy", dir: "/srv" },
      { send_file: File.join(__dir__, "..", "..", ".rspec") } =>
        { file: "--require spec_helper\n--warnings\n".b },
      { parameters: ["version=1=2", "n="] } => { parameters: { "version" => "1=2", "n" => "" } },
      { parameters: { "version" => 1 } } => { parameters: { "version" => 1 } }
    }.each do |settings, part|
      it "passes #{settings} on" do
        start("x", "web1", **settings)
        expect(request).to include(part)
      end
    end

    it "refuses parameters that are none, or given twice" do
      expect(start("x", "web1", parameters: ["version"]))
        .to have_attributes(status: 1, stderr: /-p must be followed by NAME=VALUE/)
      expect(start("x", "web1", parameters: ["a=1", "a=2"]))
        .to have_attributes(status: 1, stderr: /parameter a is given twice/)
    end

    it "takes every -p of the command line, and none of the command before" do
      given = described_class.options[:parameters][:proc]
      given.call("a=1")
      expect(given.call("b=2")).to eq(%w[a=1 b=2])
      start("x", "web1", parameters: %w[a=1 b=2])
      expect(given.call("c=3")).to eq(%w[c=3])
    end

    it "connects as Chef's configuration says" do
      Chef::Config.settings.update(ssl_verify_mode: :verify_none, trusted_certs_dir: "/certs")
      start("x", "web1")
      expect(Pushy::Client.settings).to include(
        server_url: "http://127.0.0.1/organizations/acme", user: "admin", key_file: "/keys/admin.pem",
        ssl_verify: false, trusted_certs_dir: "/certs"
      )
    end

    it "waits at the interval asked for" do
      start("x", "web1", poll_interval: "0.5")
      expect(pushy_calls.last).to eq([:wait, id, { poll_interval: 0.5, joined: false }])
    end
  end

  describe "output of captured commands" do
    let(:printed) { Queue.new }
    let(:streaming) { false }

    before do
      live = lambda do |_id, _nodes, &block|
        { stdout: "web1 | \xFFone\n", stderr: "web1 | two\n", notice: "7 bytes more" }.each { |kind, text| block.call(kind, text.b) }
        printed << true
      end
      waiting = lambda do |_id, **, &block|
        # The job ends once its output has come, where that is asked for.
        Timeout.timeout(10) { printed.pop } if streaming
        block.call(:line, "Complete.")
        outcome
      end
      pushy_answers(start_job: id, wait: waiting, stream_live: live)
    end

    context "when it is asked for" do
      let(:streaming) { true }

      it "is printed as it comes, and what is said of the job apart from it" do
        ending = start("x", "web1", capture_output: true)
        expect(ending.stdout.b).to include("web1 | \xFFone\n".b)
        expect(ending.stdout).not_to include("Complete.")
        expect(ending.stderr).to include("web1 | two\n", "7 bytes more", "Complete.")
      end
    end

    it "is left alone when asked, for programs, and without capture" do
      [{ capture_output: true, no_stream: true }, { capture_output: true, format: "json" }, {}].each do |settings|
        pushy_calls.clear
        start("x", "web1", **settings)
        expect(pushy_calls.map(&:first)).not_to include(:stream_live), settings.to_s
      end
    end
  end

  describe "search" do
    it "runs on the nodes found, on all pages, each once" do
      Chef::Search::Query.rows = [{ "name" => "a" }, { "name" => "b" }, { "name" => "a" }, { "name" => nil }]
      start("x", "ignored", search: "role:web AND name:a b")
      expect(request[:nodes]).to eq(%w[a b])
    end

    it "hands the query over as it was typed, and asks for names only" do
      Chef::Search::Query.rows = [{ "name" => "a" }]
      start("x", search: "role:web AND name:a b")
      expect(Chef::Search::Query.asked).to eq([:node, "role:web AND name:a b", { filter_result: { name: ["name"] } }])
    end

    it "says that nothing was found" do
      ending = start("x", search: "role:none")
      expect(ending).to have_attributes(status: 1, stderr: /\AERROR: No nodes to run job on\. Specify nodes/)
      expect(pushy_calls).to be_empty
    end

    it "shows what the server says of a bad query" do
      response = Struct.new(:code, :body).new("400", '{"error":["invalid search query"]}')
      Chef::Search::Query.failure = Net::HTTPClientException.new("400 Bad Request", response)
      expect(start("x", search: "((")).to have_attributes(
        status: 100, stderr: "ERROR: knife search failed: invalid search query\n"
      )
    end

    it "says when the server has no search" do
      response = Struct.new(:code, :body).new("404", '{"error":["not found"]}')
      Chef::Search::Query.failure = Net::HTTPClientException.new("404 Not Found", response)
      expect(start("x", search: "a:b").stderr)
        .to eq("ERROR: knife search failed: this server has no node search; name the nodes\n")
    end

    it "shows the status line when there is no such text" do
      response = Struct.new(:code, :body).new("502", "<html>")
      Chef::Search::Query.failure = Net::HTTPFatalError.new("502 Bad Gateway", response)
      expect(start("x", search: "a:b").stderr).to eq("ERROR: knife search failed: 502 Bad Gateway\n")
    end
  end

  describe "what it shows" do
    let(:talk) do
      lambda do |_id, **, &block|
        block.call(:line, "Running (1/2 in progress) ...")
        block.call(:notice, "connection refused; asking again")
        block.call(:line, "Complete.")
        outcome
      end
    end

    before { pushy_answers(start_job: id, wait: talk) }

    it "prints lines and the job" do
      expect(start("x", "web1")).to have_attributes(
        stdout: "Started.  Job ID: #{id}\nRunning (1/2 in progress) ...\nComplete.\n" \
                "job(nil, false)\nid: #{id}\nstatus: complete\n",
        stderr: "WARNING: connection refused; asking again\n"
      )
      expect(pushy_calls.last.last).to eq(poll_interval: 1.0, joined: false)
    end

    it "rewrites a line on a terminal" do
      pushy_answers(start_job: id, wait: lambda do |_id, **, &block|
        block.call(:progress, "0/2 done")
        block.call(:progress, "1/2 done")
        block.call(:line, "Complete.")
        outcome
      end)
      ending = start("x", "web1", terminal: true)
      expect(ending.stdout).to start_with(
        "Started.  Job ID: #{id}\n\r0/2 done\e[K\r1/2 done\e[K\r\e[KComplete.\njob(80, false)\n"
      )
      expect(pushy_calls.last.last).to include(columns: 80, color: false)
    end

    it "rewrites it beside the document for programs" do
      pushy_answers(start_job: id, wait: lambda do |_id, **, &block|
        block.call(:progress, "0/2 done")
        outcome
      end)
      ending = start("x", "web1", terminal: true, format: "json")
      expect(JSON.parse(ending.stdout)).to eq(job)
      expect(ending.stderr).to end_with("\r0/2 done\e[K\r\e[K")
    end

    %w[json yaml].each do |format|
      it "leaves nothing but the document on stdout for #{format}" do
        ending = start("x", "web1", format: format)
        expect(YAML.safe_load(ending.stdout)).to eq(job)
        expect(ending.stderr).to eq(<<~TEXT)
          Started.  Job ID: #{id}
          Running (1/2 in progress) ...
          WARNING: connection refused; asking again
          Complete.
        TEXT
      end
    end

    it "passes a warning about the server on" do
      pushy_answers(wait: outcome, start_job: lambda do |**, &block|
        block.call(:notice, "Falling back to Push Jobs v1 mode.")
        id
      end)
      expect(start("x", "web1").stderr).to eq("WARNING: Falling back to Push Jobs v1 mode.\n")
    end
  end

  describe "how it ends" do
    it "exits as Pushy says" do
      expect(start("x", "web1").status).to eq(20)
    end

    it "exits by the original's rule on request" do
      expect(start("x", "web1", lenient_exit: true).status).to eq(0)
    end

    it "does not wait with --nowait" do
      expect(start("x", "web1", nowait: true)).to have_attributes(status: 0, stdout: "Started.  Job ID: #{id}\n")
      expect(pushy_calls.map(&:first)).to eq([:start_job])
    end

    it "gives programs the id with --nowait" do
      ending = start("x", "web1", nowait: true, format: "json")
      expect(JSON.parse(ending.stdout)).to eq("id" => id)
    end

    it "says how to find the job again when the wait is given up" do
      pushy_answers(start_job: id, wait: Pushy::Error.new("no connection", 100))
      expect(start("x", "web1")).to have_attributes(
        status: 100, stderr: "ERROR: no connection\nThe job goes on; look at it with: knife job status #{id}\n"
      )
    end

    it "ends with Pushy's text and code on a failure" do
      pushy_answers(start_job: Pushy::Error.new("quorum must be a number", 1))
      expect(start("x", "web1")).to have_attributes(status: 1, stdout: "", stderr: "ERROR: quorum must be a number\n")
    end

    [Interrupt.new, SystemExit.new(2)].each do |signal|
      it "says that the job goes on when #{signal.class} ends the wait" do
        pushy_answers(start_job: id, wait: signal)
        expect(start("x", "web1")).to have_attributes(
          status: 2, stderr: "Interrupted. The job goes on; look at it with: knife job status #{id}\n"
        )
      end

      it "says that the job may have been started when #{signal.class} ends the request" do
        pushy_answers(start_job: signal)
        expect(start("x", "web1")).to have_attributes(
          status: 2, stderr: "Interrupted. The job may have been started; see: knife job list\n"
        )
      end
    end
  end

  describe "again where it failed" do
    it "runs on the nodes of an earlier job" do
      pushy_answers(start_job: id, wait: outcome, nodes_of_job: %w[web2 web3])
      start("x", from_job: "old", where: "failed", quorum: "50%")
      expect(pushy_calls.first).to eq([:nodes_of_job, "old", { where: "failed" }])
      expect(request).to include(nodes: %w[web2 web3], quorum: "50%")
    end

    it "starts nothing when there is no such node" do
      pushy_answers(nodes_of_job: Pushy::Error.new("No nodes to run job on.", 1))
      expect(start("x", from_job: "old")).to have_attributes(status: 1, stderr: "ERROR: No nodes to run job on.\n")
      expect(pushy_calls.map(&:first)).to eq([:nodes_of_job])
    end

    it "takes no names besides" do
      expect(start("x", "web1", from_job: "old")).to have_attributes(
        status: 1, stderr: "ERROR: Name nodes or give --from-job, not both.\n"
      )
      expect(start("x", "web1", where: "failed").stderr).to start_with("ERROR: --where chooses among the nodes")
      expect(pushy_calls).to be_empty
    end
  end

  describe "Ctrl-C on a terminal" do
    # Interrupted as often as there are interrupts, then at its end.
    def interrupted(*interrupts)
      lambda do |_id, **, &block|
        interrupt = interrupts.shift
        raise interrupt if interrupt

        block.call(:line, "Complete.")
        outcome
      end
    end

    [Interrupt.new, SystemExit.new(2)].each do |signal|
      it "asks, and waits on when nothing is said (#{signal.class})" do
        pushy_answers(start_job: id, wait: interrupted(signal))
        expect(start("x", "web1", terminal: "\n")).to have_attributes(status: 20, stderr: "\nWhat now? ")
        expect(pushy_calls.last).to match([:wait, id, hash_including(joined: true)])
      end

      it "leaves the job running on request (#{signal.class})" do
        pushy_answers(start_job: id, wait: interrupted(signal))
        expect(start("x", "web1", terminal: "d\n")).to have_attributes(
          status: 2, stderr: "\nWhat now? Interrupted. The job goes on; look at it with: knife job status #{id}\n"
        )
      end

      it "leaves it without a question with --detach-on-interrupt (#{signal.class})" do
        pushy_answers(start_job: id, wait: interrupted(signal))
        expect(start("x", "web1", terminal: "\n", detach_on_interrupt: true)).to have_attributes(
          status: 2, stderr: "Interrupted. The job goes on; look at it with: knife job status #{id}\n"
        )
      end

      it "cancels at the second (#{signal.class})" do
        pushy_answers(start_job: id, wait: interrupted(signal), cancel_job: %w[web1 web2])
        ending = run_command(described_class, %w[x web1], {}, terminal: true) do |knife|
          knife.ui.stdin.define_singleton_method(:gets) { raise signal }
        end
        expect(ending).to have_attributes(status: 20, stderr: "\nWhat now? \nCancelling the job.\n")
        expect(pushy_calls.map(&:first)).to eq(%i[start_job wait cancel_job wait])
      end
    end

    it "leaves at the third" do
      pushy_answers(start_job: id, wait: interrupted(Interrupt.new, Interrupt.new), cancel_job: %w[web1])
      expect(start("x", "web1", terminal: "c\n").status).to eq(2)
    end

    it "leaves when the server cannot cancel" do
      pushy_answers(start_job: id, wait: interrupted(Interrupt.new),
                    cancel_job: Pushy::Error.new("this push server cannot cancel jobs", 100))
      expect(start("x", "web1", terminal: "c\n")).to have_attributes(
        status: 2, stderr: /What now\? ERROR: this push server cannot cancel jobs\nInterrupted\. The job goes on/
      )
    end

    it "is too late when the job has ended" do
      pushy_answers(start_job: id, wait: interrupted(Interrupt.new),
                    cancel_job: Pushy::InvalidStateError.new("ended", 100))
      expect(start("x", "web1", terminal: "c\n").status).to eq(20)
    end
  end

  describe "documents for programs" do
    {
      [] => ["No job specified.", 1], %w[x] => [/\ANo nodes to run job on/, 1]
    }.each do |args, (text, status)|
      it "are one also for job start #{args.join}" do
        ending = start(*args, format: "json")
        expect(JSON.parse(ending.stdout)).to match("error" => { "message" => text, "exit_status" => status })
      end
    end

    it "are one when the server refuses" do
      pushy_answers(start_job: Pushy::Error.new("no", 100))
      expect(JSON.parse(start("x", "a", format: "json").stdout))
        .to eq("error" => { "message" => "no", "exit_status" => 100 })
    end

    it "are one when the wait is given up or interrupted" do
      { Pushy::Error.new("gone", 100) => ["gone", 100],
        Interrupt.new => ["interrupted; the job goes on", 2] }.each do |failure, (text, status)|
        pushy_answers(start_job: id, wait: failure)
        expect(JSON.parse(start("x", "a", format: "json").stdout))
          .to eq("id" => id, "error" => { "message" => text, "exit_status" => status })
      end
    end
  end

  describe "what it refuses before anything is asked" do
    {
      [[], {}] => "No job specified.",
      [["x"], {}] => "No nodes to run job on. Specify nodes as arguments or use -s to specify a search query.",
      [%w[x web1], { run_timeout: "soon" }] => '--timeout must be a number, not "soon"',
      [%w[x web1], { poll_interval: "often" }] => '--poll-interval must be a number, not "often"',
      [%w[x web1], { run_timeout: "-1" }] => '--timeout must be a number, not "-1"',
      [%w[x web1], { send_file: "/nowhere" }] => "/nowhere not found"
    }.each do |(args, settings), text|
      it text do
        expect(start(*args, **settings)).to have_attributes(status: 1, stderr: "ERROR: #{text}\n")
        expect(pushy_calls).to be_empty
      end
    end

    it "shows the usage when the command is missing" do
      expect(start.stdout).to eq("USAGE: knife job start COMMAND [NODE ...] (options)\n")
    end
  end
end
