# frozen_string_literal: true

module Pushy
  # How a wait ended: the job's document, and what a program should exit with.
  #
  # `exit_code`: 0 every node succeeded, 20 some did not, 21 quorum failed, 22 timed out, 23 aborted, 24 crashed.
  # `lenient_exit_code`: knife-push's rule, 0 or 1.
  Outcome = Struct.new(:job, :exit_code, :lenient_exit_code)

  # A client of one push server, for one user. Requests and waits run without Ruby's global lock and can be
  # interrupted; a client may be shared by threads and goes on working in the child of a fork.
  #
  # @example
  #   client = Pushy::Client.new(server_url: "https://chef.example.com/organizations/acme",
  #                              user: "alice", key_file: "/home/alice/.chef/alice.pem")
  #   id = client.start_job(command: "chef-client", nodes: %w[web1 web2])
  #   exit client.wait(id) { |kind, text| puts text if kind == :line }.exit_code
  #
  # Every method raises {Error}'s children: {ConnectionError} and {TimeoutError} without an answer, {UnauthorizedError},
  # {ForbiddenError}, {NotFoundError} and {ServerError} for an answer that says no.
  class Client
    private_class_method :connect
    private :start, :fetch_output, :stream, :live, :printed, :watch, :cancel, :select_nodes

    # Opens nothing: the first request does.
    #
    # @param server_url [String] Chef's `chef_server_url`, ending in /organizations/ORG
    # @param user [String] the name that requests are signed as
    # @param key [String, nil] the private key, PEM
    # @param key_file [String, nil] where it is; read when no key is given. Without either, requests go out unsigned
    # @param ssl_verify [Boolean] whether the server's certificate must be good
    # @param ca_file [String, nil] bundle of CAs in place of the system's
    # @param ca_path [String, nil] folder of CAs under hashed names in place of the system's
    # @param trusted_certs_dir [String, nil] folder of certificates to trust besides
    # @param client_cert [String, nil] file with a certificate to show to the server
    # @param client_key [String, nil] file with its key
    # @param http_proxy [String, nil] these three default to the environment's
    # @param https_proxy [String, nil]
    # @param no_proxy [String, nil]
    # @param timeout [Numeric, nil] seconds that the server may be silent; 300 when nil
    # @param retries [Integer, nil] how often reading requests are repeated after a passing failure; 2 when nil
    # @param auth_version [String, nil] "1.0", "1.1" (when nil) or "1.3"
    # @return [Client]
    # @raise [InvalidConfigError, InvalidKeyError]
    def self.new(server_url:, user:, key: nil, key_file: nil, ssl_verify: true, ca_file: nil, ca_path: nil,
                 trusted_certs_dir: nil, client_cert: nil, client_key: nil, http_proxy: env("http_proxy"),
                 https_proxy: env("https_proxy"), no_proxy: env("no_proxy"), timeout: nil, retries: nil,
                 auth_version: nil)
      connect(server_url, user,
              { key: key, key_file: key_file, ssl_verify: ssl_verify ? true : false, ca_file: ca_file,
                ca_path: ca_path, env_cert_file: ENV.fetch("SSL_CERT_FILE", nil),
                trusted_certs_dir: trusted_certs_dir, client_cert: client_cert, client_key: client_key,
                http_proxy: http_proxy, https_proxy: https_proxy, no_proxy: no_proxy, timeout: timeout,
                retries: retries, auth_version: auth_version })
    end

    # A proxy setting of the environment, in either spelling.
    def self.env(name)
      ENV[name] || ENV.fetch(name.upcase, nil)
    end
    private_class_method :env

    # Starts a job and does not wait for it.
    #
    # @param request [JobRequest, nil] or the arguments of {JobRequest.new}
    # @yieldparam kind [Symbol] :line, that it was started and as what; :notice, something else to know
    # @yieldparam text [String]
    # @return [String] the job's id
    # @raise [InvalidArgumentError] nothing was started
    def start_job(request = nil, **settings)
      id, line, notice = start(request || JobRequest.new(**settings))
      if block_given?
        yield :notice, notice if notice
        yield :line, line
      end
      id
    end

    # Waits until a job has ended, through short faults of network and server: by the job's event feed, and by asking where
    # the server has none.
    #
    # @param id [String]
    # @param poll_interval [Numeric] longest time between two looks at a job without a feed, in seconds
    # @param patience [Numeric] how long failures may follow each other until the wait is given up, in seconds
    # @param columns [Integer, nil] width of a terminal for :progress; without, there is none
    # @param color [Boolean] whether to paint it
    # @param joined [Boolean] whether the job was started some time ago by somebody else
    # @yieldparam kind [Symbol] :line, a new state; :progress, a line to be rewritten in place, which takes the place of the
    #   lines before the last; :notice, something else to know
    # @yieldparam text [String]
    # @return [Outcome]
    def wait(id, poll_interval: 1.0, patience: 120.0, columns: nil, color: false, joined: false, &block)
      Outcome.new(*watch(id, [poll_interval, patience], [columns, color ? true : false], joined, &block)).freeze
    end

    # Cancels a job, or ends it on some of its nodes; the job then goes on without them.
    #
    # @param id [String]
    # @param nodes [String, Array<String>, nil] nil for the whole job
    # @return [Array<String>] the nodes on which something was cancelled
    # @raise [InvalidStateError] the job has ended
    # @raise [ServerError] the server cannot cancel jobs, as the original
    def cancel_job(id, nodes = nil)
      cancel(id, nodes && Array(nodes))
    end

    # The nodes of a job on which it did not succeed, to run something on them again.
    #
    # @param id [String]
    # @param where [String, Array<String>, nil] statuses of nodes, "failed,timed_out"; nil for all that ended without success
    # @return [Array<String>] names
    # @raise [InvalidArgumentError] for a status that there is not, and when there is no such node
    def nodes_of_job(id, where: nil)
      select_nodes(id, where && Array(where).join(","))
    end

    # @!method jobs
    #   @return [Array<Hash>] every job of the organization, oldest first
    # @!method job(id)
    #   @return [Hash] one job, with its nodes by status, their counts and, where the server knows them, the reasons of those
    #     that did not succeed
    # @!method node_states
    #   @return [Array<Hash>] `node_name` and `availability` of every node, by name
    # @!method node_state(name)
    #   @return [Hash] the same for one node, with `status`

    # What a node's command printed.
    #
    # @param id [String]
    # @param node [String]
    # @param channel [String, Symbol] stdout or stderr
    # @return [String] binary
    # @raise [NotFoundError] while the command runs, and when nothing was kept
    def output(id, node, channel: "stdout")
      fetch_output(id, node, channel.to_s)
    end

    # Both channels while commands run, beside a wait for them; silent about nodes and servers that keep output only at the
    # end of a job.
    #
    # @param id [String]
    # @param nodes [Array<String>]
    # @yieldparam kind [Symbol] as in {#stream_output}
    # @yieldparam text [String]
    # @return [Boolean] whether all of it could be had
    def stream_live(id, nodes, &block)
      live(id, nodes, &block)
    end

    # The names of a job's nodes that have printed something.
    #
    # @param id [String]
    # @return [Array<String>]
    def nodes_with_output(id)
      printed(id)
    end

    # What commands print, all of it, from the nodes that keep it: lines under the names of several nodes, of one node
    # the bytes as they were written.
    #
    # @param id [String]
    # @param nodes [Array<String>] none: every node that has printed something
    # @param channel [String, Symbol] stdout, stderr or both
    # @param follow [Boolean] whether to go on until the commands have ended
    # @yieldparam kind [Symbol] :stdout and :stderr, bytes; :notice, something to know; :error, what could not be had
    # @yieldparam text [String] binary when it is bytes
    # @return [Boolean] whether all of it could be had
    def stream_output(id, nodes = [], channel: "stdout", follow: false, &block)
      stream(id, nodes, channel.to_s, follow ? true : false, &block)
    end
  end
end
