//! The manual says of every setting what the program says.

use pushy_server::config::SETTINGS;

#[test]
fn docs_list_every_setting() {
    let manual = include_str!("../../../docs/server.md");
    let table =
        manual.split("## Settings").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("a section");
    let found: Vec<&str> = table.lines().filter(|line| line.starts_with("| `")).collect();
    let wanted: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            let default = match setting.default {
                "" => "none".to_owned(),
                default => format!("`{default}`"),
            };
            format!("| `{}` | {default} | {} |", setting.name, setting.help.replace('|', "\\|"))
        })
        .collect();
    for line in &wanted {
        assert!(found.contains(&line.as_str()), "docs/server.md lacks\n{line}");
    }
    assert_eq!(found, wanted, "and in the program's order, with nothing else");
}
