# frozen_string_literal: true

require_relative "lib/knife-pushy/version"

Gem::Specification.new do |spec|
  spec.name = "knife-pushy"
  spec.version = KnifePushy::VERSION
  spec.summary = "Push jobs from knife: job start, list, status, output and node status"
  spec.description = "The commands of knife-push on the Pushy core: honest exit codes, waits that survive a server's " \
                     "restart, documents for programs. Takes precedence where knife-push is installed too."
  spec.authors = ["The Pushy authors"]
  spec.license = "Apache-2.0"
  spec.homepage = "https://github.com/pushy-jobs/pushy"
  spec.metadata = { "rubygems_mfa_required" => "true", "source_code_uri" => spec.homepage }
  spec.required_ruby_version = ">= 3.1"

  spec.files = Dir.chdir(__dir__) { Dir["lib/**/*.rb", "README.md", "LICENSE"] }
  spec.require_paths = ["lib"]

  # No gem that has knife is named: it is in `chef` up to Chef 16 and in `knife` from 17 on.
  spec.add_dependency "pushy", "= #{KnifePushy::VERSION}"
end
