# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job output: what a command printed, byte for byte.
    class JobOutput < Chef::Knife
      banner "knife job output JOB_ID NODE [NODE ...] (options)"

      option :channel,
             long: "--channel CHANNEL",
             default: "stdout",
             description: "stdout or stderr; the default is stdout."

      prepend(Module.new do
        include PushyBase

        def run
          id, *nodes = name_args
          usage_error("No job ID specified.") unless id
          usage_error("No node specified.") if nodes.empty?
          with_pushy do |client|
            nodes.each { |node| print_bytes(client.output(id, node, channel: config[:channel] || "stdout")) }
          end
        end

        private

        def print_bytes(bytes)
          ui.stdout.binmode if ui.stdout.respond_to?(:binmode)
          ui.stdout.write(bytes)
        end
      end)
    end
  end
end
