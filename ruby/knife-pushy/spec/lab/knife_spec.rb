# frozen_string_literal: true

require_relative "../support/lab"

# Real knife, the gems as they are installed, our server and our agents.

RSpec.describe "knife with the installed gems", skip: Lab.missing do
  before(:context) do
    @lab = Lab.new
    @lab.start
  end

  after(:context) { @lab&.stop }

  attr_reader :lab

  job_text = <<~'PATTERN'
    \AStarted\.  Job ID: (\h{32})
    (?:(?:Voting\.|Running \(\d/\d in progress\) \.\.\.)
    )*Complete\.
    command:     tomcat6_restart
    created_at:  \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT
    id:          \1
    nodes:
      succeeded:
        web1
        web2
    run_timeout: 3600
    status:      complete
    updated_at:  \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT
    \z
  PATTERN

  { "alone" => %i[ours], "beside knife-push" => %i[ours theirs] }.each do |where, gems|
    context where do
      define_method(:knife) { |*arguments| lab.knife(*arguments, gems: gems) }

      it "shows the nodes" do
        expect(knife("node", "status")).to have_attributes(
          status: 0, stdout: "other\tavailable\nweb1\tavailable\nweb2\tavailable\nweb3\tavailable\n", stderr: ""
        )
      end

      it "runs a job, in knife's words" do
        run = knife("job", "start", "tomcat6_restart", "web1", "web2")
        expect(run).to have_attributes(status: 0, stderr: "", stdout: Regexp.new(job_text.chomp))
        id = run.stdout[/\h{32}/]
        expect([lab.ran("web1").last, lab.ran("web2").last]).to eq([id, id])
        expect(knife("job", "status", id)).to have_attributes(status: 0, stdout: /^id: +#{id}$/)
        expect(JSON.parse(knife("job", "list", "-F", "json").stdout).last).to include("id" => id)
      end

      {
        %w[fails web1] => 20, %w[fails other] => 21, %w[-q 50% tomcat6_restart web1 gone] => 20,
        %w[--lenient-exit -q 50% tomcat6_restart web1 gone] => 0, %w[--timeout 1 long web2] => 22,
        %w[--nowait tomcat6_restart web1] => 0, %w[-q half tomcat6_restart web1] => 1, %w[tomcat6_restart] => 1
      }.each do |arguments, status|
        it "ends with #{status} for job start #{arguments.join(" ")}" do
          expect(knife("job", "start", *arguments).status).to eq(status)
        end
      end

      it "keeps stdout for the document with -F json" do
        run = knife("job", "start", "-F", "json", "fails", "web1")
        expect(JSON.parse(run.stdout)).to include("status" => "complete", "nodes" => { "failed" => ["web1"] })
        expect(run.stderr).to start_with("Started.  Job ID: ").and end_with("Complete.\n")
      end

      it "says what is wrong" do
        expect(knife("job", "status", "0" * 32)).to have_attributes(
          status: 100, stdout: "", stderr: /\AERROR: The object you are looking for could not be found/
        )
      end
    end
  end

  it "ends with 2 by Ctrl-C, and says that the job goes on" do
    run = lab.interrupted_knife(:INT, "job", "start", "long", "web3")
    expect(run.status).to eq(2)
    expect(run.stderr).to match(/\AInterrupted\. The job goes on; look at it with: knife job status \h{32}\n\z/)
  end

  describe "on a terminal" do
    it "rewrites a line, asks at Ctrl-C and cancels at the second" do
      run = lab.knife_on_terminal("job", "start", "long", "web3") do |shows, press|
        shows.("1 running")
        press.("\x03")
        shows.("Enter waits on:")
        press.("\x03")
      end
      expect(run.stdout).to match(/\rRunning 0:\d\d  0\/1 done.*Cancelling the job\..*\r\n(\r\e\[K)?Aborted\.\r\n/m)
      expect(run.status).to eq(23)
    end

    it "leaves the job running on request" do
      run = lab.knife_on_terminal("job", "start", "long", "web3") do |shows, press|
        shows.("1 running")
        press.("\x03")
        shows.("Enter waits on:")
        press.("d\n")
      end
      expect(run).to have_attributes(status: 2, stdout: /Interrupted\. The job goes on; look at it with: knife job status/)
      id = run.stdout[/\h{32}/]
      expect(lab.knife("job", "cancel", id, gems: %i[ours])).to have_attributes(status: 0, stdout: "Cancelled on web3.\n")
    end
  end

  it "watches a job, and cancels it" do
    id = lab.knife("job", "start", "--nowait", "long", "web3", gems: %i[ours]).stdout[/\h{32}/]
    expect(lab.knife("job", "cancel", id, "web1", gems: %i[ours])).to have_attributes(
      status: 100, stderr: /the job has no node "web1"/
    )
    expect(lab.knife("job", "cancel", id, gems: %i[ours])).to have_attributes(
      status: 0, stdout: "Cancelled on web3.\n", stderr: ""
    )
    run = lab.knife("job", "watch", id, gems: %i[ours])
    expect(run).to have_attributes(status: 23, stdout: /\AAborted\.\n.*^  aborted: web3\n/m, stderr: "")
    expect(lab.knife("job", "cancel", id, "-F", "json", gems: %i[ours]).stdout).to include('"nodes": [')
  end

  it "shows why, and starts again where it failed" do
    run = lab.knife("job", "start", "fails", "-q", "2", "web1", "web2", "other", gems: %i[ours])
    expect(run).to have_attributes(status: 20, stdout: /^counts: +2 failed, 1 nacked$/)
    expect(run.stdout).to match(/^reasons:\n  other: .* \(not_whitelisted\)\n  web1: .*\b3 \(exit\)\n  web2: .*\b3 \(exit\)\n/)
    id = run.stdout[/\h{32}/]
    expect(lab.knife("job", "status", id, gems: %i[ours]).stdout).to eq(run.stdout.split("Complete.\n").last)
    again = lab.knife("job", "start", "tomcat6_restart", "--from-job", id, "--where", "failed", "-F", "json", gems: %i[ours])
    expect(JSON.parse(again.stdout)).to include("nodes" => { "succeeded" => %w[web1 web2] })
    id = JSON.parse(again.stdout)["id"]
    none = lab.knife("job", "start", "tomcat6_restart", "--from-job", id, "-F", "json", gems: %i[ours])
    expect(none.status).to eq(1)
    expect(JSON.parse(none.stdout)["error"]).to include("exit_status" => 1)
  end

  it "serves the original knife-push too" do
    run = lab.knife("job", "start", "tomcat6_restart", "web2", gems: %i[theirs])
    expect(run).to have_attributes(status: 0, stdout: /^Started\.  Job ID: (\h{32})\n.*^env:\n.*^status: +complete$/m)
    expect(lab.knife("node", "status", "web2", gems: %i[theirs]).stdout).to eq("web2\tavailable\n")
  end
end
