# frozen_string_literal: true

class Chef
  class Knife
    # What the push job commands share: Chef's configuration to a Pushy::Client, the search for nodes, where text
    # goes, and how failures end. Requests, texts and exit codes are Pushy's; nothing here knows the protocol.
    #
    # A command includes this in a module that it puts *before* its class, so that it answers whichever of its file
    # and the file of the same name in knife-push is loaded last.
    module PushyBase
      # The interrupt's exit code in Pushy's table; knife's own handler ends with the same.
      INTERRUPTED = 2
      # That of an answer that says no.
      MISSING = 100

      private

      # Runs the block with a client; a failure that Pushy reports ends the command with its text and exit code.
      def with_pushy
        load_pushy
        begin
          yield pushy_client
        rescue Pushy::Error => e
          ui.error(e.message)
          failure_document(e.message, e.exit_code)
          exit(e.exit_code)
        end
      end

      # Programs get one document whatever happens.
      def failure_document(text, status, members = {})
        output(members.merge("error" => { "message" => text, "exit_status" => status })) if ui.interchange?
      end

      # A job: as Pushy writes it for people, as it is for everything else.
      def show_job(job)
        return output(job) if ui.interchange? || config[:format] == "pp"

        ui.msg(Pushy.job_text(job, columns: columns_of(ui.stdout), color: ui.color?).chomp)
      end

      # The width of the terminal behind a stream; nil when there is none that can rewrite a line.
      def columns_of(stream)
        return if !stream.tty? || ENV["TERM"] == "dumb"

        require "io/console"
        columns = stream.winsize.last if stream.respond_to?(:winsize)
        columns&.positive? ? columns : 80
      rescue SystemCallError
        80
      end

      def load_pushy
        require "pushy"
      rescue LoadError => e
        ui.fatal("The gem pushy cannot be loaded: #{e.message}")
        ui.info("Install it into the Ruby that runs knife (#{RbConfig.ruby}), which must be 3.1 or later:")
        ui.info("  chef gem install pushy      in Chef Workstation")
        ui.info("  gem install pushy           elsewhere")
        ui.info("The program `pushy` has the same commands and needs no Ruby.")
        exit 1
      end

      def pushy_client
        Pushy::Client.new(
          server_url: server_url,
          user: username,
          key: chef_setting(:client_key_contents),
          key_file: chef_setting(:client_key),
          ssl_verify: chef_setting(:ssl_verify_mode) != :verify_none,
          ca_file: chef_setting(:ssl_ca_file),
          ca_path: chef_setting(:ssl_ca_path),
          trusted_certs_dir: chef_setting(:trusted_certs_dir)
        )
      end

      # A setting that not every version of Chef knows.
      def chef_setting(name)
        value = Chef::Config[name]
        value == "" ? nil : value
      end

      # The names of the nodes that a search finds, from all pages, each once.
      def search_nodes(query)
        require "chef/search/query"
        names = []
        Chef::Search::Query.new.search(:node, query, filter_result: { name: ["name"] }) do |row|
          name = row["name"]
          names << name if name
        end
        names.uniq
      rescue *http_errors => e
        text = "knife search failed: #{search_failure(e)}"
        ui.error(text)
        failure_document(text, 100)
        exit 100
      end

      # Net::HTTPServerException was renamed in Ruby 2.6; both names are in use among the versions of Chef.
      def http_errors
        require "net/http"
        renamed = %i[HTTPClientException HTTPServerException].find { |name| Net.const_defined?(name) }
        [Net::HTTPFatalError, Net.const_get(renamed)]
      end

      # What the server says about the query, else the status line.
      def search_failure(error)
        return "this server has no node search; name the nodes" if error.response.code == "404"

        require "chef/json_compat"
        Array(Chef::JSONCompat.from_json(error.response.body)["error"]).first || error.message
      rescue StandardError
        error.message
      end

      # A line about what goes on: beside the document for people, apart from it for programs.
      def progress(text)
        if ui.interchange?
          ui.info(text)
        else
          ui.msg(text)
          ui.stdout.flush
        end
      end

      # An option's value as the block makes a number of it; nil when it is not given.
      def number(key, option)
        value = config[key]
        value.nil? ? nil : yield(value)
      rescue ArgumentError, TypeError
        value_error("#{option} must be a number, not #{value.inspect}")
      end

      # A whole number from 0 on; "010" is ten.
      def whole(value)
        number = value.is_a?(String) ? Integer(value, 10) : Integer(value)
        number.negative? ? raise(ArgumentError) : number
      end

      def usage_error(text)
        ui.error(text)
        show_usage unless ui.interchange?
        failure_document(text, 1)
        exit 1
      end

      def value_error(text)
        ui.error(text)
        failure_document(text, 1)
        exit 1
      end
    end
  end
end
