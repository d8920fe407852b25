# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)
require_relative "helpers/pushy_watch" unless defined?(Chef::Knife::PushyWatch)

class Chef
  class Knife
    # knife job start: starts a command on nodes and waits for its end.
    class JobStart < Chef::Knife
      banner "knife job start COMMAND [NODE ...] (options)"

      # Every -p of the command line that is being read: options of older Chef clients know their last value only.
      # The file may be loaded twice.
      unless respond_to?(:given_parameters)
        def self.given_parameters
          @given_parameters ||= []
        end
      end

      # The names are those of knife-push: settings under knife[...] go on working, and both files may be loaded.
      option :run_timeout,
             long: "--timeout SECONDS",
             description: "Seconds that the job may run; the server's default is 3600."

      option :quorum,
             short: "-q QUORUM",
             long: "--quorum QUORUM",
             default: "100%",
             description: "How many nodes must accept before the job runs: a percentage (50%) or a count (145)."

      option :search,
             short: "-s QUERY",
             long: "--search QUERY",
             description: "Run on the nodes that this search finds."

      option :from_job,
             long: "--from-job JOB_ID",
             description: "Run on the nodes of this job on which it did not succeed, or on those of --where."

      option :where,
             long: "--where STATUSES",
             description: "Which nodes of --from-job, by status, with commas; the default is all that ended without success."

      option :send_file,
             long: "--file FILE",
             description: "File to deliver to the nodes."

      option :capture_output,
             long: "--capture",
             boolean: true,
             default: false,
             description: "Print what the command prints as it comes, and keep it for knife job output."

      option :no_stream,
             long: "--no-stream",
             boolean: true,
             default: false,
             description: "With --capture: do not print what the command prints while it runs."

      option :with_env,
             long: "--with-env JSON",
             description: "Environment variables, as a JSON object of names and values."

      option :parameters,
             short: "-p NAME=VALUE",
             long: "--param NAME=VALUE",
             proc: ->(text) { given_parameters.push(text).dup },
             description: "A parameter that the nodes' whitelists declare for the command; may be given more than once."

      option :as_user,
             long: "--as-user USER",
             description: "Run as this user."

      option :in_dir,
             long: "--in-dir DIR",
             description: "Run in this directory."

      option :nowait,
             short: "-b",
             long: "--nowait",
             boolean: true,
             default: false,
             description: "Exit once the job is started."

      PushyWatch.options(self)

      prepend(Module.new do
        include PushyBase
        include PushyWatch

        def run
          command, *names = name_args
          usage_error("No job specified.") unless command
          request = job_request(command, names)
          poll_interval = number(:poll_interval, "--poll-interval") { |value| Float(value) }
          with_pushy do |client|
            request[:nodes] ||= client.nodes_of_job(config[:from_job], where: config[:where])
            id = start(client, request)
            finish_unwatched(id) if config[:nowait]
            stream(client, id, request[:nodes]) if config[:capture_output] && !config[:no_stream] && !ui.interchange?
            watch(client, id, poll_interval)
          end
        end

        private

        def job_request(command, names)
          {
            command: command,
            nodes: job_nodes(names),
            quorum: config[:quorum],
            run_timeout: number(:run_timeout, "--timeout") { |value| whole(value) },
            capture: config[:capture_output] ? true : false,
            env: config[:with_env],
            user: config[:as_user],
            dir: config[:in_dir],
            file: file_content,
            parameters: parameters
          }.compact
        end

        # nil: the server knows which, from an earlier job.
        def job_nodes(names)
          value_error("--where chooses among the nodes of an earlier job: give --from-job too") if misplaced_where?
          return nodes_elsewhere(names) if config[:from_job]

          names = search_nodes(config[:search]) if config[:search]
          return names unless names.empty?

          value_error("No nodes to run job on. Specify nodes as arguments or use -s to specify a search query.")
        end

        def misplaced_where?
          config[:where] && !config[:from_job]
        end

        def nodes_elsewhere(names)
          value_error("Name nodes or give --from-job, not both.") unless names.empty?
        end

        # knife[:parameters] may be a hash.
        def parameters
          given = config[:parameters]
          JobStart.given_parameters.clear
          return given if given.nil? || given.is_a?(Hash)

          pairs = Array(given).map { |text| text.split("=", 2) }
          value_error("-p must be followed by NAME=VALUE") unless pairs.all? { |pair| pair.size == 2 }
          names = pairs.map(&:first)
          twice = names.find { |name| names.count(name) > 1 }
          value_error("parameter #{twice} is given twice") if twice
          pairs.to_h
        end

        def file_content
          path = config[:send_file]
          path && File.binread(path)
        rescue Errno::ENOENT
          value_error("#{path} not found")
        rescue SystemCallError => e
          value_error("#{path} cannot be read: #{e.message}")
        end

        def finish_unwatched(id)
          output({ "id" => id }) if ui.interchange?
          exit 0
        end

        # What the commands print, beside the wait for their end.
        def stream(client, id, nodes)
          [ui.stdout, ui.stderr].each { |io| io.binmode if io.respond_to?(:binmode) }
          @live = Thread.new do
            client.stream_live(id, nodes) { |kind, text| show_output(kind, text) }
          rescue Pushy::Error => e
            ui.warn(e.message)
          end
        end

        def show_output(kind, text)
          return ui.warn(text) unless %i[stdout stderr].include?(kind)

          to = kind == :stdout ? ui.stdout : ui.stderr
          to.write(text)
          to.flush if to.respond_to?(:flush)
          @broken_line = !text.end_with?("\n") if kind == :stdout
        end

        # The end of the output comes before what is said of the end of the job.
        def follow(client, id, **options)
          outcome = super
          # The rest of the output may take so many seconds to come.
          @live&.join(30)
          ui.stdout.write("\n") if @broken_line
          outcome
        end

        # With output of commands on standard output, what is said of the job goes to standard error.
        def show(kind, text)
          @live && kind == :line ? ui.info(text) : super
        end

        def screen
          @live ? {} : super
        end

        def start(client, request)
          noting_interrupts("The job may have been started; see: knife job list") do
            client.start_job(**request) { |kind, text| show(kind, text) }
          end
        end

        # Ctrl-C comes as Interrupt, or as the exit of knife's own handler, which ends with the same code.
        def noting_interrupts(text)
          yield
        rescue Interrupt, SystemExit => e
          ui.info("Interrupted. #{text}")
          failure_document("interrupted; #{text}", PushyBase::INTERRUPTED)
          raise e if e.is_a?(SystemExit)

          exit PushyBase::INTERRUPTED
        end
      end)
    end
  end
end
