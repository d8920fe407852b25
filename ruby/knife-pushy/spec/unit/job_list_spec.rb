# frozen_string_literal: true

RSpec.describe Chef::Knife::JobList do
  it "shows the jobs" do
    pushy_answers(jobs: [{ "id" => "a" }, { "id" => "b" }])
    ending = run_command(described_class, [], { format: "json" })
    expect(JSON.parse(ending.stdout)).to eq([{ "id" => "a" }, { "id" => "b" }])
    expect(ending.status).to be_nil
  end

  it "shows the newest so many" do
    pushy_answers(jobs: [{ "id" => "a" }, { "id" => "b" }, { "id" => "c" }])
    ending = run_command(described_class, [], { format: "json", limit: "2" })
    expect(JSON.parse(ending.stdout)).to eq([{ "id" => "b" }, { "id" => "c" }])
  end

  it "refuses a limit that is no number" do
    expect(run_command(described_class, [], { limit: "all" })).to have_attributes(
      status: 1, stderr: %(ERROR: --limit must be a number, not "all"\n)
    )
  end

  it "ends with Pushy's text and code on a failure" do
    pushy_answers(jobs: Pushy::Error.new("Failed to authenticate", 100))
    expect(run_command(described_class)).to have_attributes(status: 100, stderr: "ERROR: Failed to authenticate\n")
  end
end
