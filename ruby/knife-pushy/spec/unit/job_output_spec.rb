# frozen_string_literal: true

RSpec.describe Chef::Knife::JobOutput do
  it "prints what each node wrote, byte for byte" do
    pushy_answers(output: ->(_id, node, **) { "#{node}\xFF\n".b })
    expect(run_command(described_class, %w[a web1 web2]).stdout.b).to eq("web1\xFF\nweb2\xFF\n".b)
    expect(pushy_calls).to eq([[:output, "a", "web1", { channel: "stdout" }],
                               [:output, "a", "web2", { channel: "stdout" }]])
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
