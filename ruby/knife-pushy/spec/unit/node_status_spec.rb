# frozen_string_literal: true

RSpec.describe Chef::Knife::NodeStatus do
  def state(name, availability)
    { "node_name" => name, "availability" => availability }
  end

  before do
    pushy_answers(node_states: [state("web1", "available"), state("web2", "unavailable")],
                  node_state: ->(name) { state(name, "available") })
  end

  it "shows every node" do
    expect(run_command(described_class).stdout).to eq("web1\tavailable\nweb2\tunavailable\n")
  end

  it "shows the nodes named" do
    expect(run_command(described_class, %w[db1 db2]).stdout).to eq("db1\tavailable\ndb2\tavailable\n")
  end

  it "takes an argument with a colon for a search" do
    Chef::Search::Query.rows = [{ "name" => "web1" }, { "name" => "web2" }]
    expect(run_command(described_class, %w[role:web web2]).stdout).to eq("web1\tavailable\nweb2\tavailable\n")
  end

  it "says that a search found nothing" do
    expect(run_command(described_class, ["role:none"])).to have_attributes(status: 1, stderr: "ERROR: No nodes found.\n")
  end

  it "gives programs a document" do
    expect(JSON.parse(run_command(described_class, [], { format: "json" }).stdout))
      .to eq([state("web1", "available"), state("web2", "unavailable")])
  end
end
