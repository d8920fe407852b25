# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job list: the organization's jobs.
    class JobList < Chef::Knife
      banner "knife job list (options)"

      option :limit,
             long: "--limit N",
             description: "Only the newest so many."

      prepend(Module.new do
        include PushyBase

        def run
          limit = number(:limit, "--limit") { |value| whole(value) }
          with_pushy { |client| output(limit ? client.jobs.last(limit) : client.jobs) }
        end
      end)
    end
  end
end
