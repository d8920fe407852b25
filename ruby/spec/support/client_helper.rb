# frozen_string_literal: true

require "json"
require "openssl"

# A fake server and a client of it, with a key that is made once.
module ClientHelper
  KEY = OpenSSL::PKey::RSA.new(2048)
  JOB = "6e0b432e369904e76de6e95bac99c9e6"

  # A server that answers with the block, and a client for it. Both end with the example.
  def serve(**settings, &answer)
    @server = FakeServer.new(&answer)
    Pushy::Client.new(server_url: @server.url, user: "alice", key: KEY.to_pem, retries: 0, **settings)
  end

  def server
    @server
  end

  def json(status, document)
    [status, JSON.generate(document)]
  end

  def job(status, nodes = { status => ["web1"] })
    { "id" => JOB, "status" => status, "nodes" => nodes, "command" => "x" }
  end

  # The seconds that the block took.
  def seconds
    before = Process.clock_gettime(Process::CLOCK_MONOTONIC)
    yield
    Process.clock_gettime(Process::CLOCK_MONOTONIC) - before
  end
end
