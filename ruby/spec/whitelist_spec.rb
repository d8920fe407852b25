# frozen_string_literal: true

RSpec.describe Pushy::Whitelist do
  it "finds a plain entry" do
    expect(described_class.new({ "chef-client" => "chef-client -l debug" }).look_up("chef-client")).to have_attributes(
      command_line: "chef-client -l debug", lock: nil, user: nil, dir: nil, env: {}
    )
  end

  it "substitutes groups" do
    list = described_class.new({ /^restart (\w+)$/i => 'systemctl restart \1' })
    expect(list.look_up("RESTART nginx").command_line).to eq("systemctl restart nginx")
    expect(list.look_up("restart nginx; id")).to be_nil
  end

  it "reads every member of a hash" do
    list = described_class.new({ "x" => { command_line: ["id", "-u"], lock: "/run/x", user: "deploy", dir: "/srv",
                                          env: { "A" => "1" } } })
    expect(list.look_up("x")).to have_attributes(command_line: ["id", "-u"], lock: "/run/x", user: "deploy",
                                                 dir: "/srv", env: { "A" => "1" })
  end

  it "matches anywhere on request" do
    list = described_class.new({ /chef-client/ => "chef-client" }, match: :anywhere)
    expect(list.look_up("x chef-client").command_line).to eq("x chef-client")
    expect(list.notices.join).to include("chef-client")
  end

  it "allows nothing when empty" do
    expect(described_class.new).to have_attributes(size: 0)
    expect(described_class.new.allow?("")).to be(false)
  end

  it "is frozen" do
    expect(described_class.new({ "a" => "b" })).to be_frozen
  end

  {
    [{ "x" => { lock: true } }] => Pushy::InvalidWhitelistError,
    [{ "x" => Object.new }] => TypeError,
    [{ "y" => { command_line: 3 } }] => Pushy::InvalidWhitelistError
  }.each do |(entries), failure|
    it "refuses #{entries.inspect[0, 40]}" do
      expect { described_class.new(entries) }.to raise_error(failure)
    end
  end

  it "refuses another way to match" do
    expect { described_class.new({}, match: :some) }.to raise_error(ArgumentError, /:some/)
  end
end
