# frozen_string_literal: true

RSpec.describe Chef::Knife::JobCancel do
  {
    [] => "There was nothing left to cancel.", %w[web1 web2] => "Cancelled on web1, web2.",
    (1..11).map { |i| "web#{i}" } => "Cancelled on 11 nodes."
  }.each do |nodes, text|
    it "says: #{text}" do
      pushy_answers(cancel_job: nodes)
      expect(run_command(described_class, ["a"])).to have_attributes(status: nil, stdout: "#{text}\n", stderr: "")
      expect(pushy_calls).to eq([[:cancel_job, "a", nil, {}]])
    end
  end

  it "cancels on some nodes" do
    pushy_answers(cancel_job: %w[web1])
    run_command(described_class, %w[a web1 web2])
    expect(pushy_calls).to eq([[:cancel_job, "a", %w[web1 web2], {}]])
  end

  it "gives programs a document" do
    pushy_answers(cancel_job: %w[web1])
    expect(JSON.parse(run_command(described_class, ["a"], { format: "json" }).stdout))
      .to eq("id" => "a", "nodes" => %w[web1])
  end

  it "ends with Pushy's text and code on a failure" do
    pushy_answers(cancel_job: Pushy::InvalidStateError.new("the job has ended: complete", 100))
    expect(run_command(described_class, ["a"])).to have_attributes(
      status: 100, stdout: "", stderr: "ERROR: the job has ended: complete\n"
    )
  end

  it "wants an id" do
    expect(run_command(described_class)).to have_attributes(status: 1, stderr: "ERROR: No job ID specified.\n")
  end
end
