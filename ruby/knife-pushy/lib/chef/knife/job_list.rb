# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job list: the organization's jobs.
    class JobList < Chef::Knife
      banner "knife job list (options)"

      prepend(Module.new do
        include PushyBase

        def run
          with_pushy { |client| output(client.jobs) }
        end
      end)
    end
  end
end
