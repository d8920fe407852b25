//! Words for everything that the reader refuses: what it is, and what to write instead.

use ruby_prism::Node;

/// Methods of every Ruby object that are no settings.
pub(super) fn is_code(name: &str) -> bool {
    matches!(
        name,
        "require"
            | "require_relative"
            | "load"
            | "eval"
            | "instance_eval"
            | "from_file"
            | "puts"
            | "print"
            | "p"
            | "raise"
            | "system"
            | "exec"
            | "exit"
            | "abort"
            | "include"
            | "extend"
            | "lambda"
            | "proc"
            | "send"
            | "sleep"
            | "warn"
            | "fail"
            | "loop"
            | "gem"
    )
}

/// What to say about a method that is not on the list.
pub(super) fn call_refusal(name: &str) -> String {
    match name {
        "exist?" | "exists?" | "read" | "open" | "glob" | "directory?" | "file?" => {
            format!("{name} asks the file system, which is not done here: write the value")
        }
        "new" => "making objects is not supported here: write the value (a pattern as /…/)".into(),
        "`" | "system" => "commands are not run here: write the value".into(),
        name if name.ends_with('=') && name != "==" => {
            format!("{name} on this object is not supported: write SETTING VALUE, or SETTING[:name] = VALUE")
        }
        name => format!("the method {name} is not run here: write its result"),
    }
}

/// What to say about a piece of Ruby that is not on the list.
pub(super) fn refusal(node: &Node<'_>) -> String {
    let what = if node.as_if_node().is_some() || node.as_unless_node().is_some() {
        "a condition"
    } else if node.as_case_node().is_some() || node.as_case_match_node().is_some() {
        "case"
    } else if node.as_while_node().is_some() || node.as_until_node().is_some() || node.as_for_node().is_some()
    {
        "a loop"
    } else if node.as_def_node().is_some() {
        "a method definition"
    } else if node.as_class_node().is_some() || node.as_module_node().is_some() {
        "a class or module"
    } else if node.as_begin_node().is_some() || node.as_rescue_modifier_node().is_some() {
        "begin or rescue"
    } else if node.as_or_node().is_some() {
        return "|| is not run here: for a default write ENV.fetch('NAME', 'default')".into();
    } else if node.as_and_node().is_some() {
        "a condition"
    } else if node.as_x_string_node().is_some() || node.as_interpolated_x_string_node().is_some() {
        return "commands are not run here: write the value".into();
    } else if node.as_interpolated_regular_expression_node().is_some() {
        return "a pattern with #{} is not supported: write the pattern out".into();
    } else if node.as_lambda_node().is_some() {
        "a lambda"
    } else if node.as_splat_node().is_some() {
        return "* is not supported here: write the elements".into();
    } else if node.as_range_node().is_some() {
        return "a range is not supported: write its elements".into();
    } else if node.as_multi_write_node().is_some() {
        return "several assignments in one are not supported: write one a line".into();
    } else if node.as_instance_variable_write_node().is_some()
        || node.as_global_variable_write_node().is_some()
    {
        return "only local variables and constants may be assigned: leave out the @ or $".into();
    } else if node.as_string_node().is_some()
        || node.as_hash_node().is_some()
        || node.as_array_node().is_some()
    {
        return "a value alone sets nothing: write the setting's name before it".into();
    } else {
        "this Ruby"
    };
    format!("{what} is not supported, as the file is read and not run: write the values for this machine")
}
