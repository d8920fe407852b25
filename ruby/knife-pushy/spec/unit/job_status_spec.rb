# frozen_string_literal: true

RSpec.describe Chef::Knife::JobStatus do
  it "shows the job" do
    pushy_answers(job: { "id" => "a" })
    expect(run_command(described_class, ["a"]).stdout).to eq("job(nil, false)\nid: a\n")
    expect(pushy_calls).to eq([[:job, "a", {}]])
  end

  it "fits it to a terminal" do
    pushy_answers(job: { "id" => "a" })
    expect(run_command(described_class, ["a"], terminal: true).stdout).to eq("job(80, false)\nid: a\n")
  end

  it "gives programs the document" do
    pushy_answers(job: { "id" => "a" })
    expect(JSON.parse(run_command(described_class, ["a"], { format: "json" }).stdout)).to eq("id" => "a")
  end

  it "wants an id" do
    expect(run_command(described_class)).to have_attributes(status: 1, stderr: "ERROR: No job ID specified.\n")
  end
end
