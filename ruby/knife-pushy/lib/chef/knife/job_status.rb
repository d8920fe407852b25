# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job status: one job with its nodes.
    class JobStatus < Chef::Knife
      banner "knife job status JOB_ID (options)"

      prepend(Module.new do
        include PushyBase

        def run
          id = name_args.first || usage_error("No job ID specified.")
          with_pushy { |client| show_job(client.job(id)) }
        end
      end)
    end
  end
end
