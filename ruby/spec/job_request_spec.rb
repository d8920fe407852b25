# frozen_string_literal: true

RSpec.describe Pushy::JobRequest do
  def request(**settings)
    described_class.new(command: "chef-client", nodes: %w[web1 web2 web3], **settings)
  end

  it "keeps what it is given" do
    job = request(quorum: 2, run_timeout: 60, capture: true)
    expect(job).to have_attributes(command: "chef-client", nodes: %w[web1 web2 web3], quorum: 2, run_timeout: 60)
    expect(job).to be_capture
    expect(job).to be_frozen
  end

  it "takes one name without a list" do
    expect(described_class.new(command: "x", nodes: "web1").nodes).to eq(["web1"])
  end

  it "counts a repeated node once" do
    expect(described_class.new(command: "x", nodes: %w[a b a], quorum: "100%")).to have_attributes(
      nodes: %w[a b], quorum: 2
    )
  end

  { nil => nil, "100%" => 3, "50%" => 2, "1%" => 1, "0%" => 0, "2" => 2, 2 => 2 }.each do |given, counted|
    it "counts the quorum #{given.inspect} of three nodes as #{counted.inspect}" do
      expect(request(quorum: given).quorum).to eq(counted)
    end
  end

  it "takes parameters as texts, numbers and truth values" do
    expect(request(parameters: { "version" => "1.2", count: 3, "force" => true, stage: :live, x: 1.5 })).to be_frozen
    expect(request(parameters: {})).to be_frozen
  end

  {
    { parameters: { "a b" => "1" } } => [Pushy::InvalidArgumentError, /a b/],
    { parameters: { "a" => "x" * 4097 } } => [Pushy::InvalidArgumentError, /4096/],
    { parameters: { "a" => "1", a: "2" } } => [Pushy::InvalidArgumentError, /a is given twice/],
    { parameters: { "a" => nil } } => [TypeError, /parameter a/],
    { parameters: { "a" => ["1"] } } => [TypeError, /parameter a/],
    { quorum: "half" } => [Pushy::InvalidArgumentError, /half/],
    { quorum: "-1" } => [Pushy::InvalidArgumentError, /-1/],
    { nodes: [] } => [Pushy::InvalidArgumentError, /No nodes/],
    { nodes: ["a\nb"] } => [Pushy::InvalidNameError, /node name/],
    { nodes: ["a" * 256] } => [Pushy::InvalidNameError, /node name/],
    { file: "x" * 100_001 } => [Pushy::TooLargeError, /100001/],
    { nodes: [1] } => [TypeError, /String/],
    { command: nil } => [TypeError, /String/],
    { env: { "A" => 1 } } => [TypeError, /String/],
    { env: "A=1" } => [Pushy::InvalidArgumentError, /\Aenv: not valid JSON/],
    { env: "[]" } => [Pushy::InvalidArgumentError, /env: must be a JSON object/],
    { env: ["A"] } => [TypeError, /Hash/],
    { run_timeout: "60" } => [TypeError, /Integer/],
    { run_timeout: -1 } => [RangeError, /negative|range/]
  }.each do |settings, (failure, text)|
    it "refuses #{settings.transform_values { |v| v.inspect[0, 20] }}" do
      expect { request(**settings) }.to raise_error(failure, text)
    end
  end
end
