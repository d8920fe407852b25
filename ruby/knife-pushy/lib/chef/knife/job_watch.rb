# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)
require_relative "helpers/pushy_watch" unless defined?(Chef::Knife::PushyWatch)

class Chef
  class Knife
    # knife job watch: waits for the end of a job that was started elsewhere.
    class JobWatch < Chef::Knife
      banner "knife job watch JOB_ID (options)"

      PushyWatch.options(self)

      prepend(Module.new do
        include PushyBase
        include PushyWatch

        def run
          id = name_args.first || usage_error("No job ID specified.")
          poll_interval = number(:poll_interval, "--poll-interval") { |value| Float(value) }
          with_pushy { |client| watch(client, id, poll_interval, joined: true) }
        end
      end)
    end
  end
end
