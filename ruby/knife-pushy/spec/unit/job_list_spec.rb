# frozen_string_literal: true

RSpec.describe Chef::Knife::JobList do
  it "shows the jobs" do
    pushy_answers(jobs: [{ "id" => "a" }, { "id" => "b" }])
    ending = run_command(described_class, [], { format: "json" })
    expect(JSON.parse(ending.stdout)).to eq([{ "id" => "a" }, { "id" => "b" }])
    expect(ending.status).to be_nil
  end

  it "ends with Pushy's text and code on a failure" do
    pushy_answers(jobs: Pushy::Error.new("Failed to authenticate", 100))
    expect(run_command(described_class)).to have_attributes(status: 100, stderr: "ERROR: Failed to authenticate\n")
  end
end
