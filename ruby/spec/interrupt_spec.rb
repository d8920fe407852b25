# frozen_string_literal: true

require "timeout"

# A wait may last for hours: whatever ends a Ruby thread must end it, and nothing else.
RSpec.describe "interrupting a call" do
  let(:id) { ClientHelper::JOB }

  # Both kinds of call: one question that the server does not answer, and a wait that asks again and again.
  calls = {
    "a request" => ->(client, _id) { client.jobs },
    "a wait" => ->(client, id) { client.wait(id, poll_interval: 0.05) }
  }

  def busy_server
    serve { |request| request.target.end_with?("/jobs") ? :hang : json(200, job("running")) }
  end

  # Runs the block in a thread and returns it once the server has its request.
  def under_way
    thread = Thread.new do
      Thread.current.report_on_exception = false
      yield
    end
    server.requests.pop
    thread
  end

  calls.each do |name, call|
    describe name do
      it "ends by Timeout" do
        client = busy_server
        took = seconds { expect { Timeout.timeout(0.3) { call.(client, id) } }.to raise_error(Timeout::Error) }
        expect(took).to be_between(0.3, 1.5)
      end

      it "ends by Thread#kill" do
        client = busy_server
        thread = under_way { call.(client, id) }
        expect(seconds { thread.kill.join }).to be < 1
      end

      it "ends by Thread#raise with that exception" do
        client = busy_server
        thread = under_way { call.(client, id) }
        thread.raise(ArgumentError, "stop")
        expect { thread.value }.to raise_error(ArgumentError, "stop")
      end

      it "ends by Ctrl-C" do
        client = busy_server
        pid = fork do
          trap(:INT, "DEFAULT")
          call.(client, id)
        rescue Interrupt
          exit!(42)
        end
        server.requests.pop
        Process.kill(:INT, pid)
        took = seconds { Process.wait(pid) }
        expect($?.exitstatus).to eq(42)
        expect(took).to be < 1
      end

      it "lets other threads run" do
        client = busy_server
        turns = 0
        thread = under_way { call.(client, id) }
        deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 0.2
        turns += 1 while Process.clock_gettime(Process::CLOCK_MONOTONIC) < deadline
        thread.kill.join
        expect(turns).to be > 1000
      end
    end
  end

  it "goes on after a signal whose handler returns" do
    ended = false
    client = serve { json(200, job(ended ? "complete" : "running", "succeeded" => ["web1"])) }
    handled = 0
    before = trap(:USR1) do
      handled += 1
      ended = true if handled == 3
    end
    thread = Thread.new do
      3.times do |i|
        server.requests.pop
        Process.kill(:USR1, Process.pid)
        Thread.pass until handled > i
      end
    end
    begin
      expect(client.wait(id, poll_interval: 0.05).exit_code).to eq(0)
    ensure
      thread.kill.join
      trap(:USR1, before || "DEFAULT")
    end
    expect(handled).to eq(3)
  end

  it "goes on with the same request after such a signal" do
    answer = Queue.new
    client = serve { answer.pop }
    before = trap(:USR1) { answer << json(200, []) }
    thread = Thread.new do
      server.requests.pop
      Process.kill(:USR1, Process.pid)
    end
    begin
      expect(client.jobs).to eq([])
    ensure
      thread.join
      trap(:USR1, before || "DEFAULT")
    end
    expect(server.asked).to be_empty
  end

  it "works for several threads at once" do
    barrier = Queue.new
    client = serve do
      barrier.pop
      json(200, [])
    end
    threads = Array.new(4) { Thread.new { client.jobs } }
    4.times { server.requests.pop }
    4.times { barrier << true }
    expect(threads.map(&:value)).to eq([[]] * 4)
  end

  it "works in the child of a fork and afterwards in the parent" do
    client = serve { json(200, []) }
    client.jobs
    pid = fork { exit!(client.jobs == [] ? 42 : 1) }
    Process.wait(pid)
    expect($?.exitstatus).to eq(42)
    expect(client.jobs).to eq([])
  end

  it "leaves the parent's connection alone when a child ends that has not used it" do
    client = serve { json(200, []) }
    client.jobs
    pid = fork { exit(42) }
    Process.wait(pid)
    expect($?.exitstatus).to eq(42)
    took = seconds { expect(client.jobs).to eq([]) }
    expect(took).to be < 1
    expect(server.asked.size).to eq(2)
  end
end
