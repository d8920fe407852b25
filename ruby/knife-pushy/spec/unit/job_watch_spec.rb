# frozen_string_literal: true

RSpec.describe Chef::Knife::JobWatch do
  let(:outcome) { Pushy::Outcome.new({ "id" => "a" }, 22, 1) }

  it "waits for the end of a job and exits as it did" do
    pushy_answers(wait: lambda do |_id, **, &block|
      block.call(:line, "Timed out.")
      outcome
    end)
    expect(run_command(described_class, ["a"])).to have_attributes(
      status: 22, stdout: "Timed out.\njob(nil, false)\nid: a\n", stderr: ""
    )
    expect(pushy_calls).to eq([[:wait, "a", { poll_interval: 1.0, joined: true }]])
  end

  it "exits by the original's rule on request" do
    pushy_answers(wait: outcome)
    expect(run_command(described_class, ["a"], { lenient_exit: true }).status).to eq(1)
  end

  it "does not say that a job goes on which there is not" do
    pushy_answers(wait: Pushy::NotFoundError.new("not found", 100))
    expect(run_command(described_class, ["a"])).to have_attributes(status: 100, stderr: "ERROR: not found\n")
  end

  it "wants an id" do
    expect(run_command(described_class)).to have_attributes(status: 1, stderr: "ERROR: No job ID specified.\n")
  end
end
