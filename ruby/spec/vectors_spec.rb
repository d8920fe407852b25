# frozen_string_literal: true

require "time"

# What the originals were seen to do. Rust reads the same files; here they prove that nothing is lost on the way to
# Ruby.
RSpec.describe "golden vectors" do
  describe "push-wire.json" do
    vectors = Vectors.load("push-wire")
    keys = vectors["session_keys"].transform_values { |given| Vectors.content(given) }
    rsa = vectors["rsa_keys"]

    vectors["make"].each do |vector|
      it "makes #{vector["id"]}" do
        body = Vectors.content(vector["message"])
        header = case vector["method"]
                 when "hmac_sha256" then Pushy::Message.session_header(body, keys.fetch(vector["key"]))
                 when "rsa2048_sha1" then Pushy::Message.rsa_header(body, rsa.fetch(vector["key"])["private_pem"])
                 end
        # The original leaves the line ends of its Base64 in the header.
        expect(header).to eq(vector["header"].delete("\n"))
      end
    end

    vectors["validate"].each do |vector|
      it "judges #{vector["id"]}" do
        verdict = begin
          Pushy::Message.check_from_server(vector["header"], Vectors.content(vector["message"]),
                                           keys.fetch(vector["session_key"]), rsa.fetch(vector["rsa_key"])["public_pem"])
          true
        rescue Pushy::BadSignatureError
          false
        end
        # Where the original lets an exception of OpenSSL through, it drops the message too.
        expect(verdict).to eq(vector["expect"] == true)
      end
    end
  end

  describe "chef-auth.json" do
    vectors = Vectors.load("chef-auth")
    keys = vectors["keys"]
    # Where our server departs from an Infra Server on purpose; the Rust runner has the reasons.
    departures = { "bad-hash-header-13" => false, "bad-hash-sha1-13" => false, "sign-semicolons" => false,
                   "ok-api-11" => true }

    vectors["positive"].each do |vector|
      it "signs #{vector["id"]}" do
        input = vector["input"]
        time = begin
          Time.iso8601(input["timestamp"])
        rescue ArgumentError
          Time.parse(input["timestamp"])
        end
        headers = Pushy::Auth.sign(
          key: keys.fetch(vector["key"])["private_pem"], user: input["user_id"], method: input["http_method"],
          path: input["path"], body: Vectors.content(input["file"] || input["body"]), time: time,
          version: input["proto_version"], api_version: input["api_version"]
        )
        expect(headers.to_a).to eq(vector["expect"]["headers"])
      end
    end

    %w[lenient negative].each do |group|
      vectors[group].each do |vector|
        it "judges #{vector["id"]}" do
          request = vector["request"]
          accepted = begin
            Pushy::Auth.verify(
              keys: keys.fetch(vector["key"])["public_pem"], method: request["method"],
              path: request["request_target"] || request["path"], headers: request["headers"],
              body: Vectors.content(request["file"] || request["body"]), time: Time.iso8601(vector["now"])
            )
            true
          rescue Pushy::BadSignatureError, Pushy::ClockSkewError, Pushy::MalformedError
            false
          end
          expect(accepted).to eq(departures.fetch(vector["id"]) { vector["others"]["erchef_status"] == 200 })
        end
      end
    end
  end

  describe "whitelist.json" do
    # With the original's way to match, every case equals the original; where that raises an error when the command
    # comes, the list is refused when it is made.
    departures = { "hash-string-keys" => :refused, "hash-no-command" => :refused }

    entry = lambda do |given|
      next given unless given.is_a?(Hash)
      next Regexp.new(given["regexp"], given["options"].sum { |o| { "i" => 1, "x" => 2, "m" => 4 }.fetch(o) }) if
        given.key?("regexp")

      given["keys"] == "symbol" ? given["hash"].transform_keys(&:to_sym) : given["hash"]
    end

    Vectors.load("whitelist")["cases"].each do |vector|
      it "answers #{vector["id"]}" do
        entries = vector["whitelist"].to_h { |key, value| [entry.(key), entry.(value)] }
        answer = begin
          found = Pushy::Whitelist.new(entries, match: :anywhere).look_up(vector["argument"])
          found&.command_line
        rescue Pushy::InvalidWhitelistError
          :refused
        end
        expected = vector["result"]
        expected = expected["hash"]["command_line"] if expected.is_a?(Hash)
        expect(answer).to eq(departures.fetch(vector["id"], expected))
      end
    end
  end
end
