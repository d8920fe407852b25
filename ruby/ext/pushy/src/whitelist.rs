//! `Pushy::Whitelist`: which commands a node runs, and as what.

use magnus::value::ReprValue;
use magnus::{
    Class, Module, Object, RArray, RHash, RModule, RRegexp, RString, Ruby, Symbol, TryConvert, Value,
    function, method,
};
use pushy_core::value::{Regexp, Value as Setting};
use pushy_core::whitelist::{self, CommandLine, Lock, Matching};

use crate::error;

/// Immutable once built; a look-up changes nothing.
#[magnus::wrap(class = "Pushy::Whitelist", free_immediately, size, frozen_shareable)]
struct Whitelist(whitelist::Whitelist);

/// A Ruby value as the configuration reader would have read it.
fn setting(ruby: &Ruby, value: Value) -> Result<Setting, magnus::Error> {
    if value.is_nil() {
        Ok(Setting::Nil)
    } else if let Some(text) = RString::from_value(value) {
        Ok(Setting::String(text.to_string()?))
    } else if let Some(symbol) = Symbol::from_value(value) {
        Ok(Setting::Symbol(symbol.name()?.into_owned()))
    } else if let Some(regexp) = RRegexp::from_value(value) {
        let source: String = regexp.funcall("source", ())?;
        // Ruby's own numbers: IGNORECASE 1, EXTENDED 2, MULTILINE 4.
        let options: u32 = regexp.funcall("options", ())?;
        Ok(Setting::Regexp(Regexp {
            source,
            ignore_case: options & 1 != 0,
            extended: options & 2 != 0,
            multi_line: options & 4 != 0,
        }))
    } else if let Some(array) = RArray::from_value(value) {
        array.into_iter().map(|item| setting(ruby, item)).collect::<Result<_, _>>().map(Setting::Array)
    } else if let Some(hash) = RHash::from_value(value) {
        let mut pairs = Vec::with_capacity(hash.len());
        hash.foreach(|key: Value, member: Value| {
            pairs.push((setting(ruby, key)?, setting(ruby, member)?));
            Ok(magnus::r_hash::ForEach::Continue)
        })?;
        Ok(Setting::Hash(pairs))
    } else if value.is_kind_of(ruby.class_true_class()) || value.is_kind_of(ruby.class_false_class()) {
        Ok(Setting::Bool(value.to_bool()))
    } else if value.is_kind_of(ruby.class_integer()) {
        i64::try_convert(value).map(Setting::Integer)
    } else {
        // The class only: the value may be a secret.
        let class = value.class();
        Err(magnus::Error::new(ruby.exception_type_error(), format!("a whitelist cannot hold a {class}")))
    }
}

fn build(ruby: &Ruby, entries: Value, anywhere: bool) -> Result<Whitelist, magnus::Error> {
    let entries = setting(ruby, entries)?;
    let matching = if anywhere { Matching::Anywhere } else { Matching::Whole };
    whitelist::Whitelist::from_value(&entries, matching).map(Whitelist).map_err(|e| error::raise(ruby, &e))
}

impl Whitelist {
    /// The members of a `Pushy::Allowed`, or nil.
    fn look_up(ruby: &Ruby, this: &Whitelist, command: String) -> Result<Option<RHash>, magnus::Error> {
        let Some(allowed) = this.0.look_up(&command) else {
            return Ok(None);
        };
        let hash = ruby.hash_new();
        match allowed.command {
            CommandLine::Shell(line) => hash.aset(ruby.to_symbol("command_line"), line)?,
            CommandLine::Args(args) => hash.aset(ruby.to_symbol("command_line"), ruby.ary_from_vec(args))?,
        }
        match allowed.lock {
            None => hash.aset(ruby.to_symbol("lock"), ruby.qnil())?,
            Some(Lock::ChefClient) => hash.aset(ruby.to_symbol("lock"), true)?,
            Some(Lock::Path(path)) => hash.aset(ruby.to_symbol("lock"), path)?,
        }
        hash.aset(ruby.to_symbol("user"), allowed.user)?;
        hash.aset(ruby.to_symbol("dir"), allowed.dir)?;
        let env = ruby.hash_new();
        for (name, value) in allowed.env {
            env.aset(name, value)?;
        }
        hash.aset(ruby.to_symbol("env"), env)?;
        Ok(Some(hash))
    }

    fn size(&self) -> usize {
        self.0.len()
    }

    fn notices(&self) -> Vec<String> {
        self.0.notices().iter().map(ToString::to_string).collect()
    }
}

pub(crate) fn init(ruby: &Ruby, module: RModule) -> Result<(), magnus::Error> {
    let class = module.define_class("Whitelist", ruby.class_object())?;
    class.undef_default_alloc_func();
    class.define_singleton_method("build", function!(build, 2))?;
    class.define_private_method("members", method!(Whitelist::look_up, 1))?;
    class.define_method("size", method!(Whitelist::size, 0))?;
    class.define_method("notices", method!(Whitelist::notices, 0))?;
    Ok(())
}
