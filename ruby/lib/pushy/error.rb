# frozen_string_literal: true

module Pushy
  # Base of every failure that the core reports. The message is one line for people; it holds no secret.
  class Error < StandardError
    # @return [Integer, nil] the number that Rust, C and Ruby share; it never changes its meaning
    attr_reader :code

    # @return [Integer, nil] what a program that gives up for this reason should end with
    attr_reader :exit_code
  end

  # An argument is out of range, of the wrong form, or contradicts another (1).
  class InvalidArgumentError < Error; end
  # A name breaks the rules for names (2).
  class InvalidNameError < Error; end
  # A key is missing, unreadable, encrypted, or of the wrong kind (3).
  class InvalidKeyError < Error; end
  # A signature does not fit (4).
  class BadSignatureError < Error; end
  # A timestamp lies outside the allowed window (5).
  class ClockSkewError < Error; end
  # A message or header is larger than its limit (6).
  class TooLargeError < Error; end
  # A message, header or document cannot be parsed (7).
  class MalformedError < Error; end
  # A configuration file cannot be used (8).
  class InvalidConfigError < Error; end
  # A whitelist entry cannot be used (9).
  class InvalidWhitelistError < Error; end
  # The command is not on the whitelist (10).
  class NotWhitelistedError < Error; end
  # The thing asked for does not exist (11).
  class NotFoundError < Error; end
  # The server knows the requester but does not allow the action (12).
  class ForbiddenError < Error; end
  # The server does not accept the requester's credentials (13).
  class UnauthorizedError < Error; end
  # No connection could be made, or it broke (14).
  class ConnectionError < Error; end
  # A deadline passed (15).
  class TimeoutError < Error; end
  # The server answered with an error that has no class of its own (16).
  class ServerError < Error; end
  # The wait was interrupted by the caller (17).
  class InterruptedError < Error; end
  # The peer broke the protocol (18).
  class ProtocolError < Error; end
  # The operation does not fit the state the object is in (19).
  class InvalidStateError < Error; end
  # The store could not keep what it was given (20).
  class StorageError < Error; end
  # A file could not be read or written (21).
  class FileError < Error; end
  # A defect of Pushy itself; please report it (99).
  class InternalError < Error; end
end
