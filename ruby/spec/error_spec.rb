# frozen_string_literal: true

RSpec.describe Pushy::Error do
  # The numbers of the core, from its source: a code without a class of its own is a mistake.
  source = File.read(File.expand_path("../../pushy-core/src/error.rs", __dir__))
  codes = source[/pub enum ErrorCode \{.*?^\}/m].scan(/^    (\w+) = (\d+),/).to_h { |name, code| [name, code.to_i] }
  mapping = File.read(File.expand_path("../ext/pushy/src/error.rs", __dir__))
                .scan(/ErrorCode::(\w+) => "(\w+)"/).to_h

  it "finds the table" do
    expect(codes.size).to be > 20
  end

  codes.each_key do |name|
    it "has a class for #{name}" do
      expect(mapping).to have_key(name)
      expect(Pushy.const_get(mapping[name]).superclass).to be(described_class)
    end
  end

  it "gives no two codes the same class" do
    expect(mapping.values.uniq).to eq(mapping.values)
  end

  it "is a StandardError, so that rescue catches it" do
    expect(described_class.superclass).to be(StandardError)
  end
end
