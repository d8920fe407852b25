# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # knife job output: what commands printed, byte for byte, or print just now.
    class JobOutput < Chef::Knife
      banner "knife job output JOB_ID [NODE ...] (options)"

      option :channel,
             long: "--channel CHANNEL",
             default: "stdout",
             description: "stdout, stderr or both; the default is stdout."

      option :follow,
             short: "-f",
             long: "--follow",
             boolean: true,
             default: false,
             description: "Print what there is, then what comes until the commands end; of several nodes under their names."

      option :all_nodes,
             long: "--all-nodes",
             boolean: true,
             default: false,
             description: "The output of every node that has run the command, or runs it."

      prepend(Module.new do
        include PushyBase

        def run
          id, *nodes = name_args
          usage_error("No job ID specified.") unless id
          usage_error("No node specified.") if nodes.empty? && !config[:all_nodes]
          nodes = [] if config[:all_nodes]
          with_pushy do |client|
            ui.interchange? ? print_document(client, id, nodes.uniq) : print_streams(client, id, nodes.uniq)
            exit(@missing) if @missing
          end
        end

        private

        def channel
          config[:channel] || "stdout"
        end

        # Several nodes one after the other with their names before them, or all at once with names before lines.
        def print_streams(client, id, nodes)
          [ui.stdout, ui.stderr].each { |io| io.binmode if io.respond_to?(:binmode) }
          return stream(client, id, nodes) if nodes.size < 2 || config[:follow]

          nodes.each do |node|
            ui.stdout.write("==> #{node} <==\n")
            @open_line = false
            stream(client, id, [node])
            ui.stdout.write("\n") if @open_line
          end
        end

        def stream(client, id, nodes)
          client.stream_output(id, nodes, channel: channel, follow: config[:follow] ? true : false) do |kind, text|
            show(kind, text)
          end
        end

        def show(kind, text)
          case kind
          when :stdout then write(ui.stdout, text)
          when :stderr then write(channel == "both" ? ui.stderr : ui.stdout, text)
          when :notice then ui.warn(text)
          when :error
            ui.error(text)
            @missing = MISSING
          end
        end

        def write(to, bytes)
          to.write(bytes)
          to.flush if to.respond_to?(:flush)
          @open_line = !bytes.end_with?("\n") if to.equal?(ui.stdout)
        end

        # One document for each node, when all of it is there.
        def print_document(client, id, nodes)
          nodes = client.nodes_with_output(id) if nodes.empty?
          output(nodes.map { |node| document(client, id, node) }.compact)
        end

        def document(client, id, node)
          texts = Hash.new { |hash, kind| hash[kind] = +"".b }
          client.stream_output(id, [node], channel: channel, follow: config[:follow] ? true : false) do |kind, text|
            %i[stdout stderr].include?(kind) ? texts[kind] << text : show(kind, text)
          end or return
          named = { "node_name" => node, "channel" => channel }
          return named.merge("output" => text(texts[channel.to_sym])) unless channel == "both"

          named.merge("stdout" => text(texts[:stdout]), "stderr" => text(texts[:stderr]))
        end

        def text(bytes)
          bytes.force_encoding("UTF-8").scrub
        end
      end)
    end
  end
end
