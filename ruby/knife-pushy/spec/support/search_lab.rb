# frozen_string_literal: true

require_relative "lab"

# A push server that stands alone, two organizations: `acme` with real agents, `vectors` with the nodes that the search
# of the core is tested with. Real knife and its library ask, no gem of ours is needed.
class SearchLab < Lab
  VECTORS = File.join(ROOT, "pushy-core", "tests", "search")
  AGENTS = { "1-lb-intro" => %w[lb], "1-tomcat-intro" => %w[tomcat web], "1-tomcat2-intro" => %w[tomcat web] }.freeze

  # Publishes the nodes, then answers the queries: {"published": N, "answers": [[NAME]]}.
  ASK = <<~'RUBY'
    require "chef"
    require "chef/search/query"
    asked = JSON.parse($stdin.read)
    asked["nodes"].each do |name, document|
      Chef::ServerAPI.new(asked["url"], client_name: name, signing_key_filename: asked["node_key"])
                     .put("pushy/nodes/#{name}", document)
    end
    Chef::Config[:node_name] = "admin"
    Chef::Config[:client_key] = asked["admin_key"]
    answers = asked["queries"].map do |query|
      names = []
      Chef::Search::Query.new(asked["url"]).search(:node, query) { |node| names << node.name }
      names.sort
    rescue Net::HTTPClientException => e
      e.response.code.to_i
    end
    puts JSON.generate("published" => asked["nodes"].size, "answers" => answers)
  RUBY

  def start
    tool("pushy-server", "init", server, "--free-ports", "--heartbeat-interval", "1")
    tool("pushy-server", "-d", server, "node", "add", *AGENTS.keys, "--out", "#{@dir}/nodes")
    background("pushy-server", "run", server)
    AGENTS.each { |name, roles| start_tomcat(name, roles) }
    wait_until { knife("search", "fqdn:*", "-i", "-F", "json").stdout.include?('"results": 3') }
  end

  def knife(*arguments) = super(*arguments, gems: %i[theirs])

  # `pushy-server node …`
  def node(*arguments) = tool("pushy-server", "-d", server, "node", *arguments)

  def queries = File.readlines("#{VECTORS}/queries.txt", chomp: true)

  # What chef-zero found.
  def answers = JSON.parse(File.read("#{VECTORS}/answers.json"))

  # Every query's names, as Chef's own library finds them on our server.
  def ask_vectors
    nodes = JSON.parse(File.read("#{VECTORS}/nodes.json"))
    add_vectors(nodes.keys)
    asked = { url: "#{api_url}/organizations/vectors", nodes: nodes, queries: queries,
              node_key: "#{@dir}/vectors/client.pem", admin_key: "#{server}/admin/.chef/admin.pem" }
    script = '. "$CHEF_LAB/env.sh"; exec ruby -e "$0"'
    output, status = Open3.capture2({ "CHEF_LICENSE" => "accept-no-persist" }, "bash", "-c", script, ASK,
                                    stdin_data: JSON.generate(asked))
    raise "Chef's library failed" unless status.success?

    JSON.parse(output.lines.last)
  end

  private

  def start_tomcat(name, roles)
    folder = "#{@dir}/nodes/#{name}"
    config = "#{folder}/push-jobs-client.rb"
    more = "node_roles #{roles.inspect}\nnode_environment 'prod'\nnode_tags %w[intro]\n"
    File.write(config, File.read(config).sub(/^whitelist\(.*?^\}\)\n/m) { more + WHITELIST })
    background("push-jobs-client", "-c", config, "-L", "#{folder}/log", chdir: folder)
  end

  # One key for all of them; a node's name is what counts.
  def add_vectors(names)
    FileUtils.mkdir_p("#{@dir}/vectors")
    key = OpenSSL::PKey::RSA.new(2048)
    File.write("#{@dir}/vectors/client.pem", key.to_pem)
    File.write("#{@dir}/vectors/public.pem", key.public_key.to_pem)
    tool("pushy-server", "-d", server, "org", "add", "vectors")
    tool("pushy-server", "-d", server, "-o", "vectors", "org", "add-user", "admin")
    tool("pushy-server", "-d", server, "-o", "vectors", "node", "add", *names, "--shared",
         "--public-key", "#{@dir}/vectors/public.pem", "--out", "#{@dir}/vectors/nodes")
  end

  def api_url = JSON.parse(File.read("#{server}/run.json"))["api_url"]
end
