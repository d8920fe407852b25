# frozen_string_literal: true

RSpec.describe "working with a job" do
  let(:id) { ClientHelper::JOB }

  describe "Pushy::Client#cancel_job" do
    it "cancels the whole job, or the nodes named" do
      client = serve { json(202, "id" => id, "nodes" => %w[a b]) }
      expect(client.cancel_job(id)).to eq(%w[a b])
      client.cancel_job(id, "a")
      client.cancel_job(id, %w[a b])
      expect(server.asked.map { |r| [r.method, r.target, r.body] }).to eq(
        ["{}", '{"nodes":["a"]}', '{"nodes":["a","b"]}'].map do |body|
          ["POST", "/organizations/acme/pushy/jobs/#{id}/cancel", body]
        end
      )
    end

    it "says why it cannot" do
      client = serve { json(409, "error" => "the job has ended: complete") }
      expect { client.cancel_job(id) }.to raise_error(Pushy::InvalidStateError, /the job has ended: complete/)
      client = serve { |request| request.method == "GET" ? json(200, job("running")) : [404, ""] }
      expect { client.cancel_job(id) }.to raise_error(Pushy::ServerError, /cannot cancel jobs/)
      expect { client.cancel_job(id, []) }.to raise_error(Pushy::InvalidArgumentError)
      expect { client.cancel_job("x") }.to raise_error(Pushy::InvalidNameError)
    end
  end

  describe "Pushy::Client#nodes_of_job" do
    let(:nodes) { { "succeeded" => %w[a], "failed" => %w[b c], "timed_out" => %w[d] } }

    it "names those that did not succeed, or those asked for" do
      client = serve { json(200, job("complete", nodes)) }
      expect(client.nodes_of_job(id)).to eq(%w[b c d])
      expect(client.nodes_of_job(id, where: "failed")).to eq(%w[b c])
      expect(client.nodes_of_job(id, where: %w[timed_out succeeded])).to eq(%w[a d])
      expect { client.nodes_of_job(id, where: "crashed") }.to raise_error(Pushy::InvalidArgumentError, /is crashed: /)
      expect { client.nodes_of_job(id, where: "lost") }.to raise_error(Pushy::InvalidArgumentError, /"lost" is no status/)
    end
  end

  describe "Pushy::Client#wait on a terminal" do
    it "gives a line to be rewritten in place of lines, but for the last" do
      states = [job("running", "running" => %w[a], "succeeded" => %w[b]), job("complete", "succeeded" => %w[a b])]
      client = serve { json(200, states.size > 1 ? states.shift : states.first) }
      told = []
      client.wait(id, poll_interval: 0.01, columns: 80) { |*what| told << what }
      expect(told.first).to match([:progress, /\ARunning 0:00  1\/2 done  \[#+-+\]  1 succeeded, 1 running\z/])
      expect(told.last).to eq([:line, "Complete."])
    end
  end

  describe "Pushy.job_text" do
    it "is knife's layout with counts and reasons" do
      document = job("complete", "succeeded" => %w[a], "failed" => %w[b]).merge(
        "requester" => "alice", "quorum" => 2, "reasons" => { "b" => { "code" => "exit", "text" => "exit status 3" } }
      )
      expect(Pushy.job_text(document)).to eq(<<~TEXT)
        command: x
        counts:  1 succeeded, 1 failed
        id:      #{id}
        nodes:
          failed:    b
          succeeded: a
        reasons: b: exit status 3 (exit)
        status:  complete
      TEXT
      expect(Pushy.job_text(document, color: true)).to start_with("\e[36mcommand:\e[0m x\n")
    end

    it "fits a terminal" do
      document = job("complete", "succeeded" => (1..3000).map { |i| "web-#{i}" })
      expect(Pushy.job_text(document, columns: 80)).to include("succeeded: web-[1-3000]\n")
      expect(Pushy.job_text(document).lines.size).to eq(3005)
    end

    it "takes any document" do
      expect(Pushy.job_text({ "a" => [nil, true, false, 1.5, 2**70, :b] })).to start_with("a:\n  \n  true\n  false\n  1.5\n")
    end
  end
end
