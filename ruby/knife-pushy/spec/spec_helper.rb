# frozen_string_literal: true

require "net/http"
require_relative "support/chef_stand_in"
require_relative "support/fake_pushy"
$LOADED_FEATURES << "chef/search/query.rb" << "chef/json_compat.rb" << "chef/knife.rb"

Dir[File.expand_path("../lib/chef/knife/*.rb", __dir__)].each { |file| require file }

# How a command ended: its exit status (nil when `run` returned, which knife makes 0) and what it wrote.
Ending = Struct.new(:status, :stdout, :stderr)

module CommandHelper
  # Runs a command to its end, which may be an exit. The block may prepare the command.
  def run_command(command, args = [], settings = {}, terminal: false)
    knife = command.new(args, settings, terminal: terminal)
    yield knife if block_given?
    status = begin
      knife.run
      nil
    rescue SystemExit => e
      e.status
    end
    Ending.new(status, knife.ui.stdout.string, knife.ui.stderr.string)
  end

  def pushy_answers(answers)
    Pushy::Client.answers = answers
  end

  def pushy_calls
    Pushy::Client.calls
  end
end

RSpec.configure do |config|
  config.include CommandHelper
  config.disable_monkey_patching!
  config.before do
    Pushy::Client.reset
    Chef::Config.settings = { chef_server_url: "http://127.0.0.1/organizations/acme", node_name: "admin",
                              client_key: "/keys/admin.pem" }
    Chef::Search::Query.rows = []
    Chef::Search::Query.failure = nil
  end
  # An exit outside of run_command would end the whole run with its status and be taken for a success.
  config.around do |example|
    example.run
  rescue SystemExit => e
    raise "stray exit #{e.status}"
  end
end
