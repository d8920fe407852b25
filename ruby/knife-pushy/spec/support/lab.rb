# frozen_string_literal: true

require "fileutils"
require "json"
require "open3"
require "pty"
require "timeout"
require "tmpdir"

# A push server, four agents and real knife, for the specs that need real Chef tools: CHEF_LAB names a folder with
# them (its env.sh is read). The programs come from target/debug, the gems are built and installed for the purpose.
class Lab
  ROOT = File.expand_path("../../../..", __dir__)
  PROGRAMS = File.join(ROOT, "target", "debug")
  # The last one has another whitelist.
  NODES = %w[web1 web2 web3 other].freeze
  WHITELIST = <<~RUBY
    whitelist({
      'tomcat6_restart' => 'echo $CHEF_PUSH_JOB_ID >> ran',
      'fails' => 'exit 3',
      'long' => 'sleep 60'
    })
  RUBY

  Run = Struct.new(:status, :stdout, :stderr)

  # Why the specs that need it cannot run; nil when they can.
  def self.missing
    if ENV["CHEF_LAB"].to_s.empty? then "CHEF_LAB names no folder with real knife"
    elsif !File.executable?(File.join(PROGRAMS, "pushy-server")) then "target/debug has no pushy-server"
    end
  end

  def initialize
    @dir = Dir.mktmpdir
    @pids = []
  end

  def start
    install_gems
    tool("pushy-server", "init", server, "--free-ports", "--heartbeat-interval", "1")
    tool("pushy-server", "-d", server, "node", "add", *NODES, "--out", "#{@dir}/nodes")
    background("pushy-server", "run", server)
    NODES.each { |name| start_agent(name) }
    wait_until { knife("node", "status").stdout.lines.grep(/\tavailable$/).size == NODES.size }
  end

  def stop
    @pids.reverse_each do |pid|
      Process.kill(:TERM, pid)
      Process.wait(pid)
    rescue Errno::ESRCH, Errno::ECHILD
      nil
    end
    FileUtils.rm_rf(@dir)
  end

  # Runs knife to its end.
  #
  # @param gems [Array<Symbol>] out of :ours and :theirs (knife-push on the load path)
  def knife(*arguments, gems: %i[ours theirs])
    stdout, stderr, status = Open3.capture3(*command(arguments, gems))
    Run.new(status.exitstatus, stdout, stderr)
  end

  # Starts knife, waits for the second line, sends a signal.
  def interrupted_knife(signal, *arguments)
    Open3.popen3(*command(arguments, %i[ours])) do |_, stdout, stderr, thread|
      text = stdout.gets + stdout.gets
      Process.kill(signal, thread.pid)
      Run.new(thread.value.exitstatus, text + stdout.read, stderr.read)
    end
  end

  # Runs knife on a terminal. The block gets what waits for a text, and what presses keys.
  def knife_on_terminal(*arguments)
    environment, *words = command(arguments, %i[ours])
    PTY.spawn(environment.merge("TERM" => "xterm"), *words) do |screen, keys, pid|
      text = +""
      shows = lambda do |wanted|
        Timeout.timeout(60) { text << screen.readpartial(4096) until text.include?(wanted) }
      end
      yield shows, ->(pressed) { keys.write(pressed) }
      begin
        Timeout.timeout(60) { loop { text << screen.readpartial(4096) } }
      rescue Errno::EIO, EOFError
        nil # the terminal is closed: knife has ended
      end
      return Run.new(Process.wait2(pid).last.exitstatus, text, "")
    end
  end

  # What a node's commands have written down.
  def ran(name)
    file = "#{@dir}/nodes/#{name}/ran"
    File.exist?(file) ? File.readlines(file, chomp: true) : []
  end

  private

  def server = "#{@dir}/server"

  def gem_home = "#{@dir}/gems"

  def install_gems
    environment = { "TARGET_DIR" => File.join(ROOT, "target"), "PUSHY_PROFILE" => "dev" }
    output, status = Open3.capture2e(environment, "#{ROOT}/script/gems", "--install", gem_home, "#{@dir}/built")
    raise "script/gems: #{output}" unless status.success?
  end

  def start_agent(name)
    folder = "#{@dir}/nodes/#{name}"
    config = "#{folder}/push-jobs-client.rb"
    list = name == "other" ? "whitelist({ 'tomcat6_restart' => 'true' })\n" : WHITELIST
    File.write(config, File.read(config).sub(/^whitelist\(.*?^\}\)\n/m) { list })
    background("push-jobs-client", "-c", config, "-L", "#{folder}/log", chdir: folder)
  end

  def tool(name, *arguments)
    output, status = Open3.capture2e(File.join(PROGRAMS, name), *arguments)
    raise "#{name} #{arguments.join(" ")}: #{output}" unless status.success?
  end

  def background(name, *arguments, **options)
    @pids << Process.spawn(File.join(PROGRAMS, name), *arguments, out: "#{@dir}/#{name}.log", err: %i[child out],
                                                                  in: File::NULL, **options)
  end

  def command(arguments, gems)
    script = <<~BASH
      . "$CHEF_LAB/env.sh"
      default=$(ruby -e 'print Gem.default_path.join(":")')
      export GEM_PATH=#{"#{gem_home}:" if gems.include?(:ours)}$GEM_HOME:$default
      #{"RUBYLIB=${RUBYLIB//$CHEF_LAB\\/src\\/knife-push\\/lib:/}" unless gems.include?(:theirs)}
      unset RUBYOPT
      exec ruby "$CHEF_LAB/src/chef/knife/bin/knife" "$@"
    BASH
    [{ "HOME" => @dir, "CHEF_LICENSE" => "accept-no-persist" }, "bash", "-c", script, "knife", *arguments,
     "-c", "#{server}/admin/.chef/config.rb"]
  end

  def wait_until
    Timeout.timeout(60) { sleep 0.2 until yield }
  end
end
