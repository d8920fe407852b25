# frozen_string_literal: true

RSpec.describe Pushy::Client do
  let(:id) { ClientHelper::JOB }

  describe "#start_job" do
    it "sends a signed request and answers with the id" do
      client = serve { json(201, "uri" => "http://elsewhere/organizations/acme/pushy/jobs/#{id}") }
      expect(client.start_job(command: "chef-client", nodes: %w[web1 web2], quorum: "50%")).to eq(id)
      request = server.asked.last
      expect([request.method, request.target]).to eq(["POST", "/organizations/acme/pushy/jobs"])
      expect(JSON.parse(request.body)).to eq(
        "command" => "chef-client", "nodes" => %w[web1 web2], "quorum" => 1, "capture_output" => false
      )
      signer = Pushy::Auth.verify(keys: ClientHelper::KEY.public_key.to_pem, method: "POST", path: request.target,
                                  headers: request.headers, body: request.body)
      expect(signer).to eq("alice")
    end

    it "sends every option" do
      client = serve { json(201, "uri" => "/pushy/jobs/#{id}") }
      client.start_job(command: "x", nodes: "web1", run_timeout: 60, capture: true, env: { "A" => "1" },
                       user: "deploy", dir: "/srv", file: "hello")
      expect(JSON.parse(server.asked.last.body)).to include(
        "run_timeout" => 60, "capture_output" => true, "env" => { "A" => "1" }, "user" => "deploy", "dir" => "/srv",
        "file" => "raw:hello"
      )
    end

    it "reads the environment from JSON, too" do
      client = serve { json(201, "uri" => "/pushy/jobs/#{id}") }
      client.start_job(command: "x", nodes: "web1", env: '{"A":"1","B":2}')
      expect(JSON.parse(server.asked.last.body)).to include("env" => { "A" => "1", "B" => "2" })
    end

    it "sends files that are no text, too" do
      client = serve { json(201, "uri" => "/pushy/jobs/#{id}") }
      client.start_job(command: "x", nodes: "web1", file: "\xFF\x00".b)
      expect(JSON.parse(server.asked.last.body)).to include("file" => "base64:/wA=")
    end

    it "takes a request that was made before" do
      client = serve { json(201, "uri" => "/pushy/jobs/#{id}") }
      expect(client.start_job(Pushy::JobRequest.new(command: "x", nodes: "web1"))).to eq(id)
    end

    it "asks nothing when an argument is wrong" do
      client = serve { json(201, {}) }
      expect { client.start_job(command: "x", nodes: []) }.to raise_error(Pushy::InvalidArgumentError) { |error|
        expect([error.code, error.exit_code]).to eq([1, 1])
      }
      expect(server.asked).to be_empty
    end

    it "speaks to a 1.x server in its own way, and says so" do
      client = serve do |request|
        if request.body.include?("capture_output")
          json(400, "error" => ["invalid key supplied"])
        else
          json(201, "uri" => "/pushy/jobs/#{id}")
        end
      end
      told = []
      expect(client.start_job(command: "x", nodes: "web1") { |*one| told << one }).to eq(id)
      expect(told).to eq([[:notice, "Falling back to Push Jobs v1 mode."], [:line, "Started.  Job ID: #{id}"]])
    end

    it "drops no option for a 1.x server" do
      client = serve { json(400, "error" => ["invalid key supplied"]) }
      expect { client.start_job(command: "x", nodes: "web1", user: "deploy") }
        .to raise_error(Pushy::InvalidArgumentError, /as_user/)
    end

    it "shows the reason of any other 400" do
      client = serve { json(400, "error" => ["invalid file size (must be <= 100000 bytes)"]) }
      expect { client.start_job(command: "x", nodes: "web1") }.to raise_error(Pushy::Error, /invalid file size/)
    end
  end

  describe "reading" do
    it "lists jobs" do
      client = serve { json(200, [job("complete")]) }
      expect(client.jobs).to eq([job("complete")])
    end

    it "shows a job with every member" do
      client = serve { json(200, job("complete").merge("new" => [nil, true, 1.5, -1, 2**63, { "ä" => "ö" }])) }
      expect(client.job(id)["new"]).to eq([nil, true, 1.5, -1, 2**63, { "ä" => "ö" }])
    end

    it "reads output as bytes" do
      client = serve { [200, "\xFF\n".b] }
      output = client.output(id, "web1", channel: :stderr)
      expect([output, output.encoding]).to eq(["\xFF\n".b, Encoding::BINARY])
      expect(server.asked.last.target).to end_with("/pushy/jobs/#{id}/output/web1/stderr")
    end

    it "shows nodes" do
      client = serve do |request|
        state = { "node_name" => "web1", "availability" => "available" }
        request.target.end_with?("/node_states") ? json(200, [state]) : json(200, state.merge("status" => "online"))
      end
      expect(client.node_states).to eq([{ "node_name" => "web1", "availability" => "available" }])
      expect(client.node_state("web1")).to include("status" => "online")
    end

    { ["x", "web1"] => Pushy::InvalidNameError, [ClientHelper::JOB, ""] => Pushy::InvalidNameError }
      .each do |arguments, failure|
      it "refuses #{arguments} before asking" do
        client = serve { json(200, {}) }
        expect { client.output(*arguments) }.to raise_error(failure)
        expect(server.asked).to be_empty
      end
    end

    it "refuses a channel that does not exist" do
      client = serve { json(200, {}) }
      expect { client.output(id, "web1", channel: "both") }.to raise_error(Pushy::InvalidArgumentError, /stdout or stderr/)
    end
  end

  describe "failures" do
    {
      401 => [Pushy::UnauthorizedError, 13, /Failed to authenticate to .* as alice/],
      403 => [Pushy::ForbiddenError, 12, /not authorized/],
      404 => [Pushy::NotFoundError, 11, /could not be found/],
      500 => [Pushy::ServerError, 16, /internal server error/],
      502 => [Pushy::ServerError, 16, /bad gateway/]
    }.each do |status, (failure, code, text)|
      it "is #{failure} for #{status}" do
        client = serve { json(status, "error" => ["x"]) }
        expect { client.jobs }.to raise_error(failure, text) { |error|
          expect([error.code, error.exit_code]).to eq([code, 100])
        }
      end
    end

    it "is ProtocolError for an answer that is not JSON" do
      client = serve { [200, "<html>"] }
      expect { client.jobs }.to raise_error(Pushy::ProtocolError)
    end

    it "is ConnectionError when nobody listens" do
      client = serve { json(200, []) }
      server.stop
      expect { client.jobs }.to raise_error(Pushy::ConnectionError)
    end

    it "is TimeoutError when the server is silent" do
      client = serve(timeout: 0.2) { :hang }
      expect { client.jobs }.to raise_error(Pushy::TimeoutError)
    end

    {
      { key: "nonsense" } => Pushy::InvalidKeyError,
      { key: nil, key_file: "/nowhere/alice.pem" } => Pushy::InvalidKeyError,
      { server_url: "gopher://x" } => Pushy::InvalidConfigError,
      { auth_version: "2.0" } => Pushy::InvalidArgumentError,
      { timeout: -1 } => Pushy::InvalidArgumentError,
      { timeout: Float::NAN } => Pushy::InvalidArgumentError
    }.each do |settings, failure|
      it "refuses #{settings}" do
        given = { server_url: "http://127.0.0.1/organizations/acme", user: "alice", key: ClientHelper::KEY.to_pem }
        expect { described_class.new(**given, **settings) }.to raise_error(failure)
      end
    end

    it "names the key file that cannot be read" do
      expect { described_class.new(server_url: "http://127.0.0.1/organizations/a", user: "a", key_file: "/nowhere") }
        .to raise_error("cannot read the key /nowhere: No such file or directory")
    end

    it "says nothing of the key" do
      client = serve { json(200, []) }
      expect(client.inspect).to eq("#<Pushy::Client>")
    end
  end

  describe "#wait" do
    def answers(*jobs)
      queue = jobs.dup
      serve { json(200, queue.size > 1 ? queue.shift : queue.first) }
    end

    it "answers with the job and the exit codes" do
      client = answers(job("voting"), job("complete", "succeeded" => ["web1"], "nacked" => ["web2"]))
      outcome = client.wait(id, poll_interval: 0.01)
      expect(outcome.job["status"]).to eq("complete")
      expect([outcome.exit_code, outcome.lenient_exit_code]).to eq([20, 0])
    end

    { "complete" => 0, "quorum_failed" => 21, "timed_out" => 22, "aborted" => 23, "crashed" => 24 }
      .each do |status, code|
      it "ends with #{code} for #{status}" do
        expect(answers(job(status, "succeeded" => ["web1"])).wait(id).exit_code).to eq(code)
      end
    end

    it "tells the block what happens" do
      client = answers(job("running", "running" => ["web1"], "succeeded" => ["web2"]),
                       job("complete", "succeeded" => %w[web1 web2]))
      lines = []
      client.wait(id, poll_interval: 0.01) { |kind, text| lines << text if kind == :line }
      expect(lines.last(1)).to eq(["Complete."])
      expect(lines - ["Running (1/2 in progress) ...", "Complete."]).to be_empty
    end

    it "needs no block" do
      expect(answers(job("complete")).wait(id)).to be_frozen
    end

    it "lets the block raise" do
      client = answers(job("complete"))
      expect { client.wait(id) { raise "enough" } }.to raise_error("enough")
    end

    it "lets the block break" do
      expect(answers(job("complete")).wait(id) { break :left }).to eq(:left)
    end

    it "goes on through a fault, and says so" do
      faults = [:hang_up, json(503, {})]
      client = serve { faults.shift || json(200, job("complete", "succeeded" => ["web1"])) }
      notices = []
      expect(client.wait(id) { |kind, text| notices << text if kind == :notice }.exit_code).to eq(0)
      expect(notices.size).to eq(1)
    end

    it "gives up when its patience ends" do
      client = serve { json(503, {}) }
      expect { client.wait(id, patience: 0) }.to raise_error(Pushy::ServerError)
    end
  end
end
