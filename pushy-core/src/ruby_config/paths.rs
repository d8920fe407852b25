//! Ruby's `File.dirname`, `File.join` and `File.expand_path` on text alone.

/// `File.dirname`.
pub(super) fn dirname(path: &str) -> String {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return if path.is_empty() { ".".into() } else { "/".into() };
    }
    match trimmed.rfind('/') {
        None => ".".into(),
        Some(slash) => match trimmed[..slash].trim_end_matches('/') {
            "" => "/".into(),
            parent => parent.to_owned(),
        },
    }
}

/// `File.join`: one slash between the parts, however many they bring.
pub(super) fn join(parts: &[String]) -> String {
    let mut joined = String::new();
    for (index, part) in parts.iter().enumerate() {
        if index == 0 {
            joined.push_str(part);
            continue;
        }
        match (joined.ends_with('/'), part.starts_with('/')) {
            (true, true) => {
                let length = joined.trim_end_matches('/').len();
                joined.truncate(length);
            }
            (false, false) => joined.push('/'),
            (true, false) | (false, true) => {}
        }
        joined.push_str(part);
    }
    joined
}

/// `File.expand_path(path, base)`; `None` when the home or working directory it needs is not known.
pub(super) fn expand(
    path: &str,
    base: Option<&str>,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let absolute = if path.starts_with('/') {
        path.to_owned()
    } else if path == "~" || path.starts_with("~/") {
        let home = environment("HOME").filter(|home| home.starts_with('/'))?;
        format!("{home}{}", &path[1..])
    } else if path.starts_with('~') {
        return None;
    } else {
        let base = match base {
            Some(base) => expand(base, None, environment)?,
            None => environment("PWD").filter(|dir| dir.starts_with('/'))?,
        };
        format!("{base}/{path}")
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in absolute.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_rubys() {
        for (path, dir) in [
            ("/a/b.rb", "/a"),
            ("/a", "/"),
            ("/", "/"),
            ("a", "."),
            ("", "."),
            ("a/b/", "a"),
            ("a//b", "a"),
            ("//a", "/"),
        ] {
            assert_eq!(dirname(path), dir, "{path}");
        }
        let join = |parts: &[&str]| join(&parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>());
        assert_eq!(join(&["a", "b"]), "a/b");
        assert_eq!(join(&["a/", "/b"]), "a/b");
        assert_eq!(join(&["a//", "//b"]), "a//b");
        assert_eq!(join(&["a", "/b", ""]), "a/b/");
        assert_eq!(join(&[]), "");
        let environment = |name: &str| match name {
            "HOME" => Some("/home/x".to_owned()),
            "PWD" => Some("/srv".to_owned()),
            _ => None,
        };
        for (path, base, expanded) in [
            ("~/.chef", None, "/home/x/.chef"),
            ("../cookbooks", Some("/a/b"), "/a/cookbooks"),
            ("c", None, "/srv/c"),
            ("./c/./d/../e", Some("z"), "/srv/z/c/e"),
            ("/../..", None, "/"),
        ] {
            assert_eq!(expand(path, base, &environment).as_deref(), Some(expanded), "{path}");
        }
        assert_eq!(expand("~bob/x", None, &environment), None);
        assert_eq!(expand("x", None, &|_| None), None);
    }
}
