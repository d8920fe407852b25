# frozen_string_literal: true

require "socket"

# A push server that says what a test wants: one thread per connection, no library. It speaks as much HTTP/1.1 as a
# client that keeps its connections open needs.
class FakeServer
  Request = Struct.new(:method, :target, :headers, :body)

  attr_reader :requests

  # @yieldparam request [Request]
  # @yieldreturn [Array(Integer, String), :hang, :hang_up] status and body; no answer; a closed connection
  def initialize(&answer)
    @answer = answer
    @requests = Queue.new
    @socket = TCPServer.new("127.0.0.1", 0)
    @threads = []
    @acceptor = Thread.new { accept }
    @acceptor.report_on_exception = false
  end

  def url
    "http://127.0.0.1:#{@socket.addr[1]}/organizations/acme"
  end

  # The requests so far.
  def asked
    Array.new(@requests.size) { @requests.pop }
  end

  def stop
    ([@acceptor] + @threads).each(&:kill).each(&:join)
    @socket.close
  end

  private

  def accept
    loop do
      connection = @socket.accept
      thread = Thread.new { serve(connection) }
      thread.report_on_exception = false
      @threads << thread
    end
  end

  def serve(connection)
    while (request = read(connection))
      @requests << request
      answer = @answer.call(request)
      case answer
      when :hang then sleep
      when :hang_up then return
      else write(connection, *answer)
      end
    end
  rescue SystemCallError, IOError
    nil # the client has gone, which some examples want
  ensure
    connection.close
  end

  def read(connection)
    line = connection.gets or return
    method, target = line.split
    headers = {}
    while (line = connection.gets&.chomp) && !line.empty?
      name, value = line.split(": ", 2)
      headers[name.downcase] = value
    end
    Request.new(method, target, headers, connection.read(headers["content-length"].to_i))
  end

  def write(connection, status, body, headers = {})
    head = { "content-length" => body.bytesize, "content-type" => "application/json" }.merge(headers)
    connection.write("HTTP/1.1 #{status} X\r\n#{head.map { |n, v| "#{n}: #{v}\r\n" }.join}\r\n#{body}")
  end
end
