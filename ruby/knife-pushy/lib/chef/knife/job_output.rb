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
            outputs = outputs(client, id, nodes.uniq)
            ui.interchange? ? output(document(outputs)) : print_all(outputs)
            exit(@missing) if @missing
          end
        end

        private

        def channel
          config[:channel] || "stdout"
        end

        # What each node wrote; a node of which nothing is kept is named and left out.
        def outputs(client, id, nodes)
          nodes.each_with_object({}) do |node, outputs|
            outputs[node] = client.output(id, node, channel: channel)
          rescue Pushy::NotFoundError => e
            ui.error("#{node}: no #{channel} is kept of this job; was it started with --capture, and has it ended? " \
                     "(#{e.message})")
            @missing = e.exit_code
          end
        end

        # A single output is left as it is; several have their nodes' names before them.
        def print_all(outputs)
          ui.stdout.binmode if ui.stdout.respond_to?(:binmode)
          return outputs.each_value { |bytes| ui.stdout.write(bytes) } unless name_args.size > 2

          outputs.each do |node, bytes|
            ui.stdout.write("==> #{node} <==\n", bytes)
            ui.stdout.write("\n") unless bytes.empty? || bytes.end_with?("\n")
          end
        end

        def document(outputs)
          outputs.map do |node, bytes|
            { "node_name" => node, "channel" => channel, "output" => bytes.dup.force_encoding("UTF-8").scrub }
          end
        end
      end)
    end
  end
end
