# frozen_string_literal: true

require "chef/knife" unless defined?(Chef::Knife)
require_relative "helpers/pushy_base" unless defined?(Chef::Knife::PushyBase)

class Chef
  class Knife
    # Of two gems with a file of the same name knife loads one, and under Bundler that is knife-push's. No other gem has
    # this file: it is always loaded, and brings in what was passed over.
    module PushyBase
      { "job_cancel" => :JobCancel, "job_list" => :JobList, "job_output" => :JobOutput, "job_start" => :JobStart,
        "job_status" => :JobStatus, "job_watch" => :JobWatch, "node_status" => :NodeStatus }.each do |command, name|
        file = File.expand_path("../#{command}.rb", __FILE__)
        ours = Knife.const_defined?(name, false) && Knife.const_get(name).include?(PushyBase)
        Kernel.load(file) unless ours
        # Where `knife rehash` says that the command is.
        Knife.subcommand_files[command] = [file]
      end
    end
  end
end
