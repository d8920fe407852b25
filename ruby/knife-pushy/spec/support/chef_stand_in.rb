# frozen_string_literal: true

require "json"
require "stringio"
require "yaml"

# As much of Chef's knife as the commands use, so that their specs need no Chef: the option table, the arguments and
# settings, and a `ui` that keeps what it is given. The names and streams are those of Chef 14 to 19.
class Chef
  # The settings of a test.
  module Config
    @settings = {}

    class << self
      attr_accessor :settings

      def [](name)
        @settings[name]
      end
    end
  end

  # Chef's own JSON, for the error texts of its server.
  module JSONCompat
    def self.from_json(text)
      JSON.parse(text)
    end
  end

  # Finds what the test has put there, page by page as the real one yields it.
  module Search
    class Query
      class << self
        attr_accessor :rows, :failure, :asked
      end

      def search(type, query, args)
        self.class.asked = [type, query, args]
        raise self.class.failure if self.class.failure

        self.class.rows.each { |row| yield row }
        true
      end
    end
  end

  # The class that commands inherit from.
  class Knife
    class << self
      attr_reader :banner_text

      def options
        @options ||= {}
      end

      def subcommand_files
        @@subcommand_files ||= Hash.new([])
      end

      def option(name, settings)
        options[name] = settings
      end

      def banner(text)
        @banner_text = text
      end

      def deps; end
    end

    # Keeps what a command says, by stream.
    class Ui
      attr_reader :stdout, :stderr, :stdin

      # @param terminal [Boolean, String] whether people watch; a text is what they type
      def initialize(format, terminal)
        @format = format
        @stdout = StringIO.new
        @stderr = StringIO.new
        @stdin = StringIO.new(terminal.is_a?(String) ? terminal : "")
        [@stdout, @stderr, @stdin].each { |stream| stream.define_singleton_method(:tty?) { terminal ? true : false } }
      end

      def color?
        false
      end

      def interchange?
        %w[json yaml].include?(@format)
      end

      def output(data)
        case @format
        when "json" then stdout.puts(JSON.pretty_generate(data))
        when "yaml" then stdout.puts(data.to_yaml)
        else stdout.puts(data.map { |item| item.is_a?(Array) ? item.join(": ") : item.to_s })
        end
      end

      def msg(text)
        stdout.puts(text)
      end

      def info(text)
        stderr.puts(text)
      end

      def warn(text)
        stderr.puts("WARNING: #{text}")
      end

      def error(text)
        stderr.puts("ERROR: #{text}")
      end

      def fatal(text)
        stderr.puts("FATAL: #{text}")
      end
    end

    attr_accessor :name_args, :config
    attr_reader :ui

    # @param settings [Hash] what `knife[...]` and options come to, over the options' defaults
    def initialize(args, settings = {}, terminal: false)
      @name_args = args
      @config = self.class.options.transform_values { |option| option[:default] }.merge(settings)
      @ui = Ui.new(@config[:format], terminal)
    end

    def output(data)
      ui.output(data)
    end

    def show_usage
      ui.stdout.puts("USAGE: #{self.class.banner_text}")
    end

    def server_url
      Chef::Config[:chef_server_url]
    end

    def username
      Chef::Config[:node_name]
    end
  end
end
