# frozen_string_literal: true

require_relative "pushy/version"
require_relative "pushy/error"

begin
  begin
    # A prebuilt gem carries one library for each Ruby.
    require "pushy/#{RUBY_VERSION[/\d+\.\d+/]}/pushy_ruby"
  rescue LoadError
    require "pushy/pushy_ruby"
  end
rescue LoadError => e
  raise LoadError, "the native part of the gem pushy is missing or was built for another Ruby than " \
                   "#{RUBY_VERSION} (#{e.message}); build it with: gem pristine pushy " \
                   "(needs Rust, the headers of Ruby and libclang)"
end

require_relative "pushy/auth"
require_relative "pushy/job"
require_relative "pushy/client"
require_relative "pushy/whitelist"

# Push Jobs for Ruby. {Client} starts jobs and waits for them; {Auth}, {Message} and {Whitelist} are the pieces that
# server, node and tools must agree on. All of it is the same Rust core that the Pushy programs use.
module Pushy
  private_class_method :render_job

  # A job as people read it: knife's layout, with the reasons of the nodes on which it did not succeed.
  #
  # @param job [Hash] as {Client#job} and {Outcome} give it
  # @param columns [Integer, nil] width of the terminal, for which long lists are shortened; nil shortens nothing
  # @param color [Boolean]
  # @return [String] lines
  def self.job_text(job, columns: nil, color: false)
    render_job(job, columns, color ? true : false)
  end
end
