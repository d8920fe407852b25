# frozen_string_literal: true

module Pushy
  # Chef's signed headers.
  #
  # @example
  #   headers = Pushy::Auth.sign(key: File.read("alice.pem"), user: "alice", method: "GET", path: "/organizations/acme")
  #   Net::HTTP.get_response(URI("https://chef.example.com/organizations/acme"), headers)
  module Auth
    private_class_method :sign_request, :verify_request

    class << self
      # The headers of a request.
      #
      # @param key [String] the private key, PEM
      # @param user [String] the name that goes with it
      # @param method [String] "GET", "POST", …
      # @param path [String] as on the request line; a query is not signed
      # @param body [String]
      # @param time [Time] when it is signed; the server allows 15 minutes either way
      # @param version [String] "1.0", "1.1" or "1.3"
      # @param api_version [String, nil] the X-Ops-Server-API-Version that is sent besides; 1.3 signs it
      # @return [Hash{String=>String}]
      # @raise [InvalidKeyError, InvalidNameError, InvalidArgumentError]
      def sign(key:, user:, method:, path:, body: "", time: Time.now, version: "1.1", api_version: nil)
        sign_request(key, user, [method, path, body], microseconds(time), version, api_version)
      end

      # Who signed a request: the user's name, when one of the keys fits.
      #
      # @param keys [String, Array<String>] public keys of the user that the headers name, PEM
      # @param headers [Hash{String=>String}, Array<Array(String, String)>] names in any case
      # @param time [Time] the clock to compare with
      # @param skew [Integer] allowed difference, in seconds; the bound itself is out
      # @return [String]
      # @raise [MalformedError] headers that are missing or cannot be understood
      # @raise [ClockSkewError] signed too long ago or ahead
      # @raise [BadSignatureError] no key fits, or the body is another
      # @raise [InvalidKeyError]
      def verify(keys:, method:, path:, headers:, body: "", time: Time.now, skew: 900)
        verify_request(Array(keys), [method, path, body], headers.to_a, microseconds(time), skew)
      end

      private

      def microseconds(time)
        (time.to_i * 1_000_000) + time.usec
      end
    end
  end
end
