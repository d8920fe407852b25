# frozen_string_literal: true

require "open3"
require "tmpdir"

RSpec.describe Chef::Knife::PushyBase do
  it "says how to get the gem that cannot be loaded" do
    ending = run_command(Chef::Knife::JobList) do |knife|
      allow(knife).to receive(:require).with("pushy").and_raise(LoadError, "no such file")
    end
    expect(ending.status).to eq(1)
    expect(ending.stderr).to start_with("FATAL: The gem pushy cannot be loaded: no such file\n")
    expect(ending.stderr).to include("gem install pushy", RbConfig.ruby)
  end

  it "says nothing of a setting that this Chef does not have" do
    pushy_answers(jobs: [])
    run_command(Chef::Knife::JobList)
    expect(Pushy::Client.settings).to include(key: nil, ca_file: nil, ssl_verify: true)
  end

  # knife-push has files and classes of the same names. knife loads one of each pair, or both, in any order; the file
  # pushy_first.rb is always loaded.
  describe "beside another gem with the same classes" do
    ours = File.expand_path("../../lib/chef/knife", __dir__)
    support = File.expand_path("../support", __dir__)
    others = {
      "job_start" => 'class JobStart < Chef::Knife; option :quorum, long: "--quorum Q"; def run; puts "theirs"; end; end',
      "job_list" => 'class JobList < Chef::Knife; banner "theirs"; def run; puts "theirs"; end; end',
      "job_status" => 'class JobStatus < Chef::Knife; def run; puts "theirs"; end; end',
      "job_output" => 'class JobOutput < Chef::Knife; def run; puts "theirs"; end; def get_channel(name); name; end; end',
      "node_status" => 'class NodeStatus < Chef::Knife; def run; puts "theirs"; end; private; def names; []; end; end'
    }

    others.each do |name, source|
      [%w[ours theirs], %w[theirs ours], %w[ours theirs ours], %w[ours ours], %w[theirs first], %w[first theirs],
       %w[ours first]].each do |order|
        it "answers as #{name} without a warning when loaded in the order #{order.join(", ")}" do
          Dir.mktmpdir do |dir|
            theirs = File.join(dir, "#{name}.rb")
            File.write(theirs, "class Chef; class Knife; #{source}; end; end\n")
            files = { "ours" => File.join(ours, "#{name}.rb"), "theirs" => theirs,
                      "first" => File.join(ours, "pushy_first.rb") }
            klass = name.split("_").map(&:capitalize).join
            script = <<~RUBY
              $LOADED_FEATURES << "chef/knife.rb"
              require "#{support}/chef_stand_in"
              #{order.map { |which| "Kernel.load #{files[which].inspect}" }.join("\n")}
              knife = Chef::Knife::#{klass}
              print knife.superclass, " ", knife.instance_method(:run).source_location.first
            RUBY
            output, status = Open3.capture2e(RbConfig.ruby, "-w", "-e", script)
            expect(output).to eq("Chef::Knife #{files["ours"]}")
            expect(status).to be_success
          end
        end
      end
    end

    it "is what knife rehash writes down" do
      script = <<~RUBY
        $LOADED_FEATURES << "chef/knife.rb"
        require "#{support}/chef_stand_in"
        Chef::Knife.subcommand_files["job_start"] += ["/theirs/job_start.rb"]
        Kernel.load "#{ours}/pushy_first.rb"
        puts Chef::Knife.subcommand_files.sort.flatten
      RUBY
      output, = Open3.capture2e(RbConfig.ruby, "-w", "-e", script)
      expect(output.lines(chomp: true)).to eq((others.keys + %w[job_cancel job_watch]).sort.flat_map { |name| [name, File.join(ours, "#{name}.rb")] })
    end
  end
end
