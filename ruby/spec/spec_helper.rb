# frozen_string_literal: true

$LOAD_PATH.unshift(File.expand_path("../lib", __dir__))
require "pushy"
require_relative "support/fake_server"
require_relative "support/client_helper"
require_relative "support/vectors"

# GC_STRESS=1 runs every example with a collection at each chance, which finds values that Rust has let go of.
stress = ENV.key?("GC_STRESS")

RSpec.configure do |config|
  config.disable_monkey_patching!
  config.include ClientHelper
  config.after { server&.stop }
  config.around do |example|
    GC.stress = stress
    example.run
  ensure
    GC.stress = false
  end
end
