# frozen_string_literal: true

RSpec.describe Chef::Knife::JobOutput do
  it "prints what a node wrote, byte for byte" do
    pushy_answers(output: "\xFFno line end".b)
    expect(run_command(described_class, %w[a web1]).stdout.b).to eq("\xFFno line end".b)
    expect(pushy_calls).to eq([[:output, "a", "web1", { channel: "stdout" }]])
  end

  it "puts the names of several nodes before what they wrote" do
    pushy_answers(output: ->(_id, node, **) { "#{node}!" })
    expect(run_command(described_class, %w[a web1 web2]).stdout)
      .to eq("==> web1 <==\nweb1!\n==> web2 <==\nweb2!\n")
  end

  it "goes on to the next node when nothing is kept of one" do
    pushy_answers(output: ->(_id, node, **) { node == "web1" ? raise(Pushy::NotFoundError.new("not found", 100)) : "x" })
    expect(run_command(described_class, %w[a web1 web2])).to have_attributes(
      status: 100, stdout: "==> web2 <==\nx\n", stderr: /\AERROR: web1: no stdout is kept of this job.*\(not found\)\n\z/
    )
  end

  it "gives programs a document" do
    pushy_answers(output: "\xFFx".b)
    ending = run_command(described_class, %w[a web1], { format: "json" })
    expect(JSON.parse(ending.stdout)).to eq([{ "node_name" => "web1", "channel" => "stdout", "output" => "\uFFFDx" }])
  end

  it "asks for the channel named" do
    pushy_answers(output: "")
    run_command(described_class, %w[a web1], { channel: "stderr" })
    expect(pushy_calls).to eq([[:output, "a", "web1", { channel: "stderr" }]])
  end

  { [] => "No job ID specified.", ["a"] => "No node specified." }.each do |args, text|
    it "refuses #{args}" do
      expect(run_command(described_class, args)).to have_attributes(status: 1, stderr: "ERROR: #{text}\n")
    end
  end
end
