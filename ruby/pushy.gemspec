# frozen_string_literal: true

require_relative "lib/pushy/version"

Gem::Specification.new do |spec|
  spec.name = "pushy"
  spec.version = Pushy::VERSION
  spec.summary = "Push Jobs for Ruby: start jobs on nodes, wait for them, sign and verify requests"
  spec.description = "Bindings of the Pushy core: a client of the push server's REST API whose waits can be " \
                     "interrupted, Chef's signed headers, the wire format and the whitelist."
  spec.authors = ["The Pushy authors"]
  spec.license = "Apache-2.0"
  spec.homepage = "https://github.com/pushy-jobs/pushy"
  spec.metadata = { "rubygems_mfa_required" => "true", "source_code_uri" => spec.homepage }
  spec.required_ruby_version = ">= 3.1"

  # The source gem is a Cargo workspace of its own: script/gems puts the core and a lock file beside the binding.
  spec.files = Dir.chdir(__dir__) do
    Dir["lib/**/*.rb", "sig/*.rbs", "ext/pushy/{Cargo.toml,extconf.rb}", "ext/pushy/src/**/*.rs",
        "Cargo.{toml,lock}", "pushy-core/Cargo.toml", "pushy-core/src/**/*.rs", "README.md", "LICENSE"]
  end
  raise "build this gem with script/gems: the core's sources are missing" unless spec.files.include?("Cargo.lock")

  spec.require_paths = ["lib"]
  spec.extensions = ["ext/pushy/extconf.rb"]
end
