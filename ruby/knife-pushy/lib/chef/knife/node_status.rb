# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife node status: which nodes can take jobs.
    class NodeStatus < Chef::Knife
      banner "knife node status [NODE|QUERY ...] (options)"

      prepend(Module.new do
        include PushyBase

        def run
          with_pushy do |client|
            show(name_args.empty? ? client.node_states : names.map { |name| client.node_state(name) })
          end
        end

        private

        # An argument with a colon is a search: no node name has one.
        def names
          found = name_args.flat_map { |arg| arg.include?(":") ? search_nodes(arg) : [arg] }.uniq
          found.empty? ? value_error("No nodes found.") : found
        end

        def show(states)
          return output(states) if ui.interchange?

          states.each { |state| ui.msg("#{state["node_name"]}\t#{state["availability"]}") }
        end
      end)
    end
  end
end
