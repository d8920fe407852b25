# frozen_string_literal: true

# Builds the Rust half. With the gem rb_sys its mkmf does (handy for cross builds); without it a Makefile that
# calls cargo is all it takes: a Rust toolchain, Ruby's headers and libclang.
begin
  require "rb_sys/mkmf" unless ENV["PUSHY_PLAIN_CARGO"]
rescue LoadError
  nil # the plain way below
end

if respond_to?(:create_rust_makefile, true)
  create_rust_makefile("pushy/pushy_ruby")
  return
end

require "rbconfig"
require "shellwords"

folders = ENV.fetch("PATH", "").split(File::PATH_SEPARATOR) + [File.join(Dir.home, ".cargo", "bin")]
cargo = ENV["CARGO"] || folders.map { |folder| File.join(folder, "cargo#{RbConfig::CONFIG["EXEEXT"]}") }
                               .find { |file| File.executable?(file) }
abort "gem pushy needs cargo to build: install Rust (https://www.rust-lang.org/tools/install)" unless cargo

unless File.exist?(File.join(RbConfig::CONFIG["rubyhdrdir"], "ruby.h"))
  abort "gem pushy needs Ruby's headers to build: install ruby-dev (or ruby-devel)"
end

profile = ENV.fetch("PUSHY_PROFILE", "release")
built = profile == "dev" ? "debug" : profile
prefix = RbConfig::CONFIG["SOEXT"] == "dll" ? "" : "lib"

File.write("Makefile", <<~MAKE)
  CARGO = #{cargo.shellescape}
  # rb-sys asks this Ruby, not the first on the path, what to build for.
  RUBY = #{RbConfig.ruby.shellescape}
  DLLIB = pushy_ruby.#{RbConfig::CONFIG["DLEXT"]}
  TARGET_DIR ?= $(CURDIR)/target
  sitearchdir ?= #{RbConfig::CONFIG["sitearchdir"]}

  all: $(DLLIB)
  $(DLLIB): FORCE
  \tRUBY=$(RUBY) CARGO_TARGET_DIR="$(TARGET_DIR)" $(CARGO) build --profile #{profile} --locked \\
  \t  --manifest-path #{__dir__.shellescape}/Cargo.toml
  \tcp "$(TARGET_DIR)/#{built}/#{prefix}pushy_ruby.#{RbConfig::CONFIG["SOEXT"]}" $(DLLIB)
  # What cargo leaves behind is a hundred times the library: an installed gem does not keep it.
  install: $(DLLIB)
  \tmkdir -p "$(DESTDIR)$(sitearchdir)/pushy"
  \tinstall -m 0755 $(DLLIB) "$(DESTDIR)$(sitearchdir)/pushy/$(DLLIB)"
  \trm -rf target
  clean:
  \trm -rf target $(DLLIB)
  distclean realclean: clean
  \trm -f Makefile
  FORCE:
  .PHONY: all install clean distclean realclean FORCE
MAKE
