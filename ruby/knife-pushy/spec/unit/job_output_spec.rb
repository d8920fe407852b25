# frozen_string_literal: true

RSpec.describe Chef::Knife::JobOutput do
  # A stream that yields what is given for a node, or for all of them under nil.
  def streams(given)
    lambda do |_id, nodes, **, &block|
      pieces = given.fetch(nodes.first) { given.fetch(nil) }
      pieces.each { |kind, text| block.call(kind, text.b) }
      pieces.none? { |kind, _| kind == :error }
    end
  end

  it "prints what a node wrote, byte for byte" do
    pushy_answers(stream_output: streams("web1" => [[:stdout, "\xFFno "], [:stdout, "line end"]]))
    expect(run_command(described_class, %w[a web1]).stdout.b).to eq("\xFFno line end".b)
    expect(pushy_calls).to eq([[:stream_output, "a", ["web1"], { channel: "stdout", follow: false }]])
  end

  it "puts the names of several nodes before what they wrote" do
    pushy_answers(stream_output: streams("web1" => [[:stdout, "one!"]], "web2" => [[:stdout, "two\n"]]))
    expect(run_command(described_class, %w[a web1 web2]).stdout).to eq("==> web1 <==\none!\n==> web2 <==\ntwo\n")
  end

  it "follows several nodes at once, their names before lines" do
    pushy_answers(stream_output: streams(nil => [[:stdout, "web1 | x\n"], [:stderr, "web2 | y\n"]]))
    ending = run_command(described_class, %w[a], { follow: true, all_nodes: true, channel: "both" })
    expect(ending).to have_attributes(stdout: "web1 | x\n", stderr: "web2 | y\n")
    expect(pushy_calls).to eq([[:stream_output, "a", [], { channel: "both", follow: true }]])
  end

  it "goes on to the next node when nothing is kept of one" do
    pushy_answers(stream_output: streams("web1" => [[:error, "web1: not found"]], "web2" => [[:stdout, "x"]]))
    expect(run_command(described_class, %w[a web1 web2])).to have_attributes(
      status: 100, stdout: /==> web2 <==\nx\n\z/, stderr: "ERROR: web1: not found\n"
    )
  end

  it "warns of what is missing" do
    pushy_answers(stream_output: streams("web1" => [[:stdout, "x"], [:notice, "web1: 7 bytes more"]]))
    expect(run_command(described_class, %w[a web1])).to have_attributes(stdout: "x", stderr: /7 bytes more/)
  end

  it "gives programs a document" do
    pushy_answers(stream_output: streams("web1" => [[:stdout, "\xFFx"]]), nodes_with_output: ["web1"])
    ending = run_command(described_class, %w[a], { format: "json", all_nodes: true })
    expect(JSON.parse(ending.stdout)).to eq([{ "node_name" => "web1", "channel" => "stdout", "output" => "\uFFFDx" }])
  end

  it "gives programs both channels apart" do
    pushy_answers(stream_output: streams("web1" => [[:stdout, "o"], [:stderr, "e"]]))
    ending = run_command(described_class, %w[a web1], { format: "json", channel: "both" })
    expect(JSON.parse(ending.stdout))
      .to eq([{ "node_name" => "web1", "channel" => "both", "stdout" => "o", "stderr" => "e" }])
  end

  it "asks for the channel named" do
    pushy_answers(stream_output: streams("web1" => [[:stderr, "e"]]))
    expect(run_command(described_class, %w[a web1], { channel: "stderr" }).stdout).to eq("e")
    expect(pushy_calls).to eq([[:stream_output, "a", ["web1"], { channel: "stderr", follow: false }]])
  end

  { [] => "No job ID specified.", ["a"] => "No node specified." }.each do |args, text|
    it "refuses #{args}" do
      expect(run_command(described_class, args)).to have_attributes(status: 1, stderr: "ERROR: #{text}\n")
    end
  end
end
