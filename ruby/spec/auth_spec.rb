# frozen_string_literal: true

RSpec.describe Pushy::Auth do
  let(:key) { ClientHelper::KEY }
  let(:time) { Time.utc(2024, 2, 29, 23, 59, 58) }
  let(:request) { { method: "POST", path: "/organizations/acme/pushy/jobs", body: "{}" } }
  let(:headers) { described_class.sign(key: key.to_pem, user: "alice", time: time, **request) }

  def verify(**changes)
    described_class.verify(keys: key.public_key.to_pem, headers: headers, time: time, **request, **changes)
  end

  %w[1.0 1.1 1.3].each do |version|
    it "takes what it has signed with #{version}" do
      signed = described_class.sign(key: key.to_pem, user: "alice", version: version, time: time, **request)
      expect(verify(headers: signed)).to eq("alice")
    end
  end

  it "takes the key that fits out of several" do
    keys = [OpenSSL::PKey::RSA.new(2048).public_key.to_pem, key.public_key.to_pem]
    expect(verify(keys: keys)).to eq("alice")
  end

  it "takes headers by name in any case, as pairs" do
    expect(verify(headers: headers.map { |name, value| [name.downcase, value] })).to eq("alice")
  end

  {
    { body: "{} " } => Pushy::BadSignatureError,
    { path: "/organizations/other/pushy/jobs" } => Pushy::BadSignatureError,
    { method: "PUT" } => Pushy::BadSignatureError,
    { keys: [] } => Pushy::BadSignatureError,
    { time: Time.utc(2024, 3, 1, 0, 14, 58) } => Pushy::ClockSkewError,
    { headers: {} } => Pushy::MalformedError,
    { keys: "nonsense" } => Pushy::InvalidKeyError
  }.each do |changes, failure|
    it "refuses #{changes}" do
      expect { verify(**changes) }.to raise_error(failure)
    end
  end

  it "signs now, when no time is given" do
    signed = described_class.sign(key: key.to_pem, user: "alice", **request)
    expect(verify(headers: signed, time: Time.now)).to eq("alice")
  end

  { { key: "nonsense" } => Pushy::InvalidKeyError, { user: "" } => Pushy::InvalidNameError,
    { version: "2" } => Pushy::InvalidArgumentError }.each do |changes, failure|
    it "does not sign with #{changes}" do
      given = { key: key.to_pem, user: "alice", **request }
      expect { described_class.sign(**given, **changes) }.to raise_error(failure)
    end
  end
end
