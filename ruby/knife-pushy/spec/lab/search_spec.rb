# frozen_string_literal: true

require_relative "../support/search_lab"

RSpec.describe "knife's own commands for nodes", skip: Lab.missing do
  before(:context) do
    @lab = SearchLab.new
    @lab.start
  end

  after(:context) { @lab&.stop }

  attr_reader :lab

  def knife(*arguments) = lab.knife(*arguments)

  def json(*arguments) = JSON.parse(knife(*arguments, "-F", "json").stdout)

  it "searches with -a" do
    expect(knife("search", "name:*tomcat*", "-a", "push_jobs.whitelist")).to have_attributes(
      status: 0, stdout: <<~TEXT
        1-tomcat-intro:
          push_jobs.whitelist:
            fails:           exit 3
            long:            sleep 60
            tomcat6_restart: echo $CHEF_PUSH_JOB_ID >> ran

        1-tomcat2-intro:
          push_jobs.whitelist:
            fails:           exit 3
            long:            sleep 60
            tomcat6_restart: echo $CHEF_PUSH_JOB_ID >> ran

      TEXT
    )
  end

  it "searches with -i, and says how many there are" do
    expect(knife("search", "node", "role:web AND NOT chef_environment:dev", "-i")).to have_attributes(
      status: 0, stdout: "1-tomcat-intro\n1-tomcat2-intro\n", stderr: /^2 items found$/
    )
  end

  it "searches with -F json" do
    found = json("search", "tags:intro AND roles:lb")
    expect(found).to include("results" => 1, "rows" => [a_hash_including("name" => "1-lb-intro", "run_list" => ["role[lb]"])])
    filtered = json("search", "roles:lb", "-f", "ip=ipaddress,env=chef_environment")
    expect(filtered["rows"]).to eq([{ nil.to_s => { "ip" => "127.0.0.1", "env" => "prod" } }])
  end

  it "searches by words without a field" do
    expect(json("search", "tomc", "-i")["results"]).to eq(2)
  end

  it "pages" do
    expect(knife("search", "*:*", "-i", "-R", "2").stdout).to eq("1-lb-intro\n1-tomcat-intro\n1-tomcat2-intro\n")
    expect(knife("search", "*:*", "-i", "-b", "2", "-R", "2").stdout).to eq("1-tomcat2-intro\n")
  end

  it "ends with 1 when nothing is found, and says what is wrong with a query" do
    expect(knife("search", "name:nobody", "-i").status).to eq(1)
    expect(knife("search", "name:(a", "-i")).to have_attributes(
      status: 99, stderr: /knife search failed: invalid search query: 'name:\(a': at character 8: a '\)' is missing/
    )
  end

  it "lists and shows nodes" do
    expect(knife("node", "list").stdout).to eq("1-lb-intro\n1-tomcat-intro\n1-tomcat2-intro\n")
    expect(knife("node", "list", "-E", "prod").stdout.lines.size).to eq(3)
    expect(json("node", "list", "-w")).to include("1-lb-intro" => %r{/organizations/acme/nodes/1-lb-intro\z})
    expect(knife("node", "show", "1-lb-intro").stdout).to match(
      /^Node Name: +1-lb-intro\nEnvironment: prod\nFQDN: +\S+\nIP: +127\.0\.0\.1\nRun List: +role\[lb\]\nRoles: +lb$/
    )
    expect(knife("node", "show", "1-lb-intro", "-a", "push_jobs.whitelist.fails").stdout).to include("exit 3")
    expect(knife("node", "show", "1-lb-intro", "-l").stdout).to include("push_jobs:", "tomcat6_restart:")
    expect(knife("node", "show", "nobody")).to have_attributes(status: 100, stderr: /node 'nobody' not found/)
  end

  it "starts jobs on what a search finds" do
    run = knife("job", "start", "tomcat6_restart", "--search", "name:*tomcat*")
    expect(run).to have_attributes(status: 0, stdout: /^Started\.  Job ID: (\h{32})\n.*^ +1-tomcat-intro\n +1-tomcat2-intro$/m)
    id = run.stdout[/\h{32}/]
    expect([lab.ran("1-tomcat-intro").last, lab.ran("1-tomcat2-intro").last, lab.ran("1-lb-intro")]).to eq([id, id, []])
    expect(knife("job", "start", "tomcat6_restart", "--search", "name:nobody").status).to eq(1)
  end

  it "believes the administrator before the node" do
    lab.node("set", "1-lb-intro", "roles=front", "environment=qa")
    expect(knife("search", "role:lb", "-i").status).to eq(1)
    expect(knife("search", "role:front AND chef_environment:qa", "-i").stdout).to eq("1-lb-intro\n")
    lab.node("unset", "1-lb-intro")
    expect(knife("search", "role:lb", "-i").stdout).to eq("1-lb-intro\n")
  end

  it "finds the sets of chef-zero, query by query, with Chef's own library" do
    asked = lab.ask_vectors
    expect(asked["published"]).to be >= 30
    expect(lab.queries.size).to be >= 60
    expect(lab.queries.zip(asked["answers"]).to_h).to eq(lab.answers)
  end
end
