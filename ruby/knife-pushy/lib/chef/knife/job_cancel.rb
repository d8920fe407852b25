# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job cancel: ends a job, or ends it on some of its nodes.
    class JobCancel < Chef::Knife
      banner "knife job cancel JOB_ID [NODE ...] (options)"

      # So many names are said, more are counted.
      NAMED = 10

      prepend(Module.new do
        include PushyBase

        def run
          id, *nodes = name_args
          usage_error("No job ID specified.") unless id
          with_pushy { |client| tell(id, client.cancel_job(id, nodes.empty? ? nil : nodes)) }
        end

        private

        def tell(id, nodes)
          if ui.interchange? then output({ "id" => id, "nodes" => nodes })
          elsif nodes.empty? then ui.msg("There was nothing left to cancel.")
          else ui.msg("Cancelled on #{nodes.size > NAMED ? "#{nodes.size} nodes" : nodes.join(", ")}.")
          end
        end
      end)
    end
  end
end
