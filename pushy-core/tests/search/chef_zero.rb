# frozen_string_literal: true

# Answers queries with chef-zero: reads {"nodes": {NAME: NODE}, "queries": [TEXT]} and prints for each query the names
# found, or the HTTP status of a refusal. Needs a lab's environment (script/lab).

require "json"
require "net/http"
require "socket"
require "uri"
require "chef_zero/server"

asked = JSON.parse($stdin.read)
port = TCPServer.open("127.0.0.1", 0) { |socket| socket.addr[1] }
server = ChefZero::Server.new(host: "127.0.0.1", port: port, single_org: "lab", log_level: :fatal)
server.start_background
server.load_data("nodes" => asked["nodes"].transform_values { |node| JSON.generate(node) })
answers = Net::HTTP.start("127.0.0.1", port) do |http|
  asked["queries"].map do |query|
    answer = http.get("/search/node?#{URI.encode_www_form(q: query)}", "Accept" => "application/json")
    next answer.code.to_i unless answer.is_a?(Net::HTTPSuccess)

    JSON.parse(answer.body)["rows"].map { |row| row["name"] }.sort
  end
end
server.stop
puts JSON.generate(answers)
