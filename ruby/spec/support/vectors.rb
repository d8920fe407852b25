# frozen_string_literal: true

require "base64"
require "digest"
require "json"

# The golden files that Rust and C read too.
module Vectors
  DIRECTORY = File.expand_path("../../../tests/vectors", __dir__)

  module_function

  def load(name)
    JSON.parse(File.read(File.join(DIRECTORY, "#{name}.json")))
  end

  # Content is given as text, as Base64, or as a seed that makes many bytes.
  def content(given)
    return given["utf8"].b if given.key?("utf8")
    return Base64.decode64(given["base64"]) if given.key?("base64")

    seed, size = given.fetch("filler").values_at("seed", "bytes")
    bytes = +"".b
    (0..).each do |i|
      break if bytes.bytesize >= size

      bytes << Digest::SHA256.digest(seed + [i].pack("Q>"))
    end
    bytes.byteslice(0, size)
  end
end
