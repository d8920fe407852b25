# frozen_string_literal: true

module Pushy
  # A job to be started, checked when it is made; frozen.
  #
  # @example
  #   job = Pushy::JobRequest.new(command: "chef-client", nodes: %w[web1 web2], quorum: "50%")
  #   job.quorum # => 1
  class JobRequest
    private_class_method :build

    # @param command [String] as the nodes' whitelists name it
    # @param nodes [String, Array<String>] names; repeated ones count once
    # @param quorum [String, Integer, nil] how many must accept: "50%", "3" or 3; nil for all
    # @param run_timeout [Integer, nil] seconds that the job may run; nil for the server's default
    # @param capture [Boolean] whether to keep what the command prints
    # @param env [Hash{String=>String}, String, nil] environment variables, or the text of a JSON object with them; nil
    #   sends none
    # @param user [String, nil] run as this user
    # @param dir [String, nil] run in this directory
    # @param file [String, nil] content of a file to deliver, at most 100,000 bytes
    # @param parameters [Hash{String, Symbol => String, Symbol, Numeric, true, false}, nil] what the nodes' whitelists
    #   declare for the command
    # @return [JobRequest]
    # @raise [InvalidArgumentError, InvalidNameError, TooLargeError]
    # @raise [TypeError] for a value of the wrong kind
    def self.new(command:, nodes:, quorum: nil, run_timeout: nil, capture: false, env: nil, user: nil, dir: nil,
                 file: nil, parameters: nil)
      build(command, Array(nodes),
            [quorum&.to_s, run_timeout, capture ? true : false, env, user, dir, file, texts(parameters)]).freeze
    end

    # Parameters as pairs of texts. The error names no value.
    def self.texts(parameters)
      parameters&.map do |name, value|
        case value
        when String, Symbol, Numeric, true, false then [name.to_s, value.to_s]
        else raise TypeError, "parameter #{name}: a text, number or truth value is needed, not #{value.class}"
        end
      end
    end
    private_class_method :texts
  end
end
