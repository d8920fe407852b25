# frozen_string_literal: true

RSpec.describe "sig/pushy.rbs" do
  # Class or module => its methods, as the signature has them; a leading dot for those of the class itself.
  signed = Hash.new { |hash, name| hash[name] = [] }
  name = nil
  File.foreach(File.expand_path("../sig/pushy.rbs", __dir__)) do |line|
    case line
    when /^  (?:class|module) (\w+)/ then signed[name = $1]
    when /^    def self\.(\w+[?!]?):/ then signed[name] << ".#{$1}"
    when /^    (?:def|attr_reader) (\w+[?!]?):/ then signed[name] << $1
    end
  end

  # What the constant has of its own and shows to the public.
  def self.public_methods_of(constant)
    own = constant.singleton_methods(false)
    # A struct's class methods are Ruby's.
    own = [] if constant.is_a?(Class) && constant < Struct
    own.map { |method| ".#{method}" } + constant.public_instance_methods(false).map(&:to_s).grep_v(/=\z/)
  end

  classes = Pushy.constants.select { |constant| Pushy.const_get(constant).is_a?(Module) }

  it "names every class and module" do
    expect(signed.keys.sort).to eq(classes.map(&:to_s).sort)
  end

  classes.each do |constant|
    it "has the methods of #{constant}" do
      expect(signed[constant.to_s].sort).to eq(self.class.public_methods_of(Pushy.const_get(constant)).sort)
    end
  end

  it "agrees with the core about the version" do
    core = File.read(File.expand_path("../../Cargo.toml", __dir__))[/^version = "(.*)"/, 1]
    expect(Pushy::VERSION).to eq(core)
    expect(File.read(File.expand_path("../knife-pushy/lib/knife-pushy/version.rb", __dir__))).to include(%("#{core}"))
  end
end
