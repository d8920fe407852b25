# frozen_string_literal: true

RSpec.describe Pushy::Message do
  let(:key) { "k" * 32 }
  let(:body) do
    '{"node":"web1","client":"web1","protocol_version":"2.0","org":"acme","type":"heartbeat","sequence":3,' \
      '"timestamp":"Thu, 29 Feb 2024 23:59:58 GMT","incarnation_id":"i","job_state":"idle","job_id":null,"more":[1,2.5]}'
  end

  it "signs a body so that the server takes it" do
    header = described_class.session_header(body, key)
    expect(described_class.check_from_node(header, body, key)).to be(true)
  end

  it "does not take a body that was changed" do
    header = described_class.session_header(body, key)
    expect { described_class.check_from_node(header, "#{body} ", key) }
      .to raise_error(Pushy::BadSignatureError, /signature/) { |error| expect(error.code).to eq(4) }
  end

  it "does not take an endless header" do
    expect { described_class.check_from_node("x" * 2049, body, key) }.to raise_error(Pushy::TooLargeError)
  end

  it "reads a node's message with all its members" do
    expect(described_class.from_node(body)).to include("node" => "web1", "sequence" => 3, "job_id" => nil, "more" => [1, 2.5])
  end

  it "reads a server's message" do
    text = '{"sequence":1,"timestamp":"Thu, 29 Feb 2024 23:59:58 GMT","type":"ack"}'
    expect(described_class.from_server(text)).to include("type" => "ack")
  end

  ["", "[]", "{", '{"type":"heartbeat"}', "\xFF"].each do |text|
    it "refuses #{text.inspect} as a message" do
      expect { described_class.from_node(text) }.to raise_error(Pushy::MalformedError)
      expect { described_class.from_server(text) }.to raise_error(Pushy::MalformedError)
    end
  end
end
