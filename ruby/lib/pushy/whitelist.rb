# frozen_string_literal: true

module Pushy
  # What a whitelist says to a command that it allows.
  #
  # `command_line` is a String for the shell or an Array of program and arguments; `lock` true, a path or nil; `user`,
  # `dir` and `env` are enforced when set.
  Allowed = Struct.new(:command_line, :lock, :user, :dir, :env, keyword_init: true)

  # The commands that a node runs, with the meaning they have in `push-jobs-client.rb`.
  #
  # @example
  #   list = Pushy::Whitelist.new({ "chef-client" => "chef-client", /^restart (\w+)$/ => 'systemctl restart \1' })
  #   list.look_up("restart nginx").command_line # => "systemctl restart nginx"
  #   list.look_up("rm -rf /") # => nil
  class Whitelist
    private_class_method :build
    private :members

    # @param entries [Hash{String, Regexp => String, Hash, nil}]
    # @param match [Symbol] :whole, a pattern must match the whole command; :anywhere, as the original client
    # @return [Whitelist] frozen
    # @raise [InvalidWhitelistError] naming the entry that cannot be used
    def self.new(entries = {}, match: :whole)
      unless %i[whole anywhere].include?(match)
        raise ArgumentError, "match must be :whole or :anywhere, not #{match.inspect}"
      end

      build(entries, match == :anywhere).freeze
    end

    # @param command [String]
    # @return [Allowed, nil] nil when the command is not allowed
    def look_up(command)
      found = members(command)
      found && Allowed.new(**found).freeze
    end

    # @param command [String]
    # @return [Boolean]
    def allow?(command)
      !look_up(command).nil?
    end
  end
end
