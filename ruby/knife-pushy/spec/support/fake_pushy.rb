# frozen_string_literal: true

# A Pushy that notes what it is asked and answers what the test has prepared.
module Pushy
  class Error < StandardError
    attr_reader :exit_code

    def initialize(message, exit_code)
      super(message)
      @exit_code = exit_code
    end
  end

  class NotFoundError < Error; end
  class InvalidStateError < Error; end

  INTERRUPT_QUESTION = "What now?"

  def self.job_text(job, columns:, color:)
    "job(#{columns.inspect}, #{color})\n#{job.map { |name, value| "#{name}: #{value}\n" }.join}"
  end

  Outcome = Struct.new(:job, :exit_code, :lenient_exit_code)

  class Client
    class << self
      # What the last client was made with; what every client answers; what was asked.
      attr_accessor :settings, :answers, :calls

      def reset
        self.answers = {}
        self.calls = []
      end
    end

    def initialize(**settings)
      self.class.settings = settings
    end

    def start_job(**request, &block)
      answer(:start_job, **request, &block).tap { |id| block.call(:line, "Started.  Job ID: #{id}") }
    end

    def wait(id, **options, &block)
      answer(:wait, id, **options, &block)
    end

    def cancel_job(id, nodes = nil) = answer(:cancel_job, id, nodes)

    def nodes_of_job(id, where: nil) = answer(:nodes_of_job, id, where: where)

    def job(id) = answer(:job, id)

    def jobs = answer(:jobs)

    def output(*args, **options) = answer(:output, *args, **options)

    def stream_output(*args, **options, &block) = answer(:stream_output, *args, **options, &block)

    def stream_live(*args, &block) = answer(:stream_live, *args, &block)

    def nodes_with_output(id) = answer(:nodes_with_output, id)

    def node_states = answer(:node_states)

    def node_state(name) = answer(:node_state, name)

    private

    def answer(call, *args, **options, &block)
      self.class.calls << [call, *args, options]
      prepared = self.class.answers.fetch(call)
      prepared = prepared.call(*args, **options, &block) if prepared.respond_to?(:call)
      raise prepared if prepared.is_a?(Exception)

      prepared
    end
  end
end

$LOADED_FEATURES << "pushy.rb"
