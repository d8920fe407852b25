//! Substitution templates: the right-hand side of a pattern entry, with Ruby's rules for `gsub` (7.4).

use fancy_regex::Captures;

use super::translate::Translated;

/// One piece of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// Text as it is.
    Text(String),
    /// What group n matched; 0 is the whole match.
    Group(usize),
    /// The text before the match.
    Before,
    /// The text after it.
    After,
    /// The value of a parameter, by its place in the declaration.
    Parameter(usize),
}

/// A template, read once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// A text without references.
    pub(super) fn verbatim(text: &str) -> Template {
        Template { pieces: vec![Piece::Text(text.to_owned())] }
    }

    /// The text of a template without references to a match.
    pub(super) fn text(&self, values: &[String]) -> String {
        let texts = self.pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.as_str(),
            Piece::Parameter(number) => values.get(*number).map_or("", String::as_str),
            Piece::Group(_) | Piece::Before | Piece::After => "",
        });
        texts.collect()
    }

    /// Reads `{name}` in what is text so far; `{{` and `}}` stand for braces. `find` gives a parameter's place.
    ///
    /// # Errors
    /// A name that is not declared, and braces that stand for nothing.
    pub(super) fn with_parameters(self, find: &dyn Fn(&str) -> Option<usize>) -> Result<Template, String> {
        let mut pieces = Vec::with_capacity(self.pieces.len());
        for piece in self.pieces {
            let Piece::Text(text) = piece else {
                pieces.push(piece);
                continue;
            };
            let mut plain = String::new();
            let mut rest = text.as_str();
            while let Some(at) = rest.find(['{', '}']) {
                let (before, brace) = rest.split_at(at);
                plain.push_str(before);
                let doubled = brace.starts_with("{{") || brace.starts_with("}}");
                if doubled {
                    plain.push_str(&brace[..1]);
                    rest = &brace[2..];
                    continue;
                }
                let name = brace.strip_prefix('{').and_then(|inside| Some(inside.split_once('}')?.0));
                let Some(name) = name else {
                    return Err("its command_line has a brace without its other half; write {{ or }} for one that is \
                                meant as it is"
                        .into());
                };
                let Some(number) = find(name) else {
                    return Err(format!(
                        "its command_line names a parameter {{{name}}} that is not declared; declare it, or write {{{{ \
                         and }}}} for braces"
                    ));
                };
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(Piece::Parameter(number));
                rest = &brace[name.len() + 2..];
            }
            plain.push_str(rest);
            if !plain.is_empty() {
                pieces.push(Piece::Text(plain));
            }
        }
        Ok(Template { pieces })
    }

    /// Places of the parameters that it holds, in order; and whether it begins with the first of them.
    pub(super) fn parameters(&self) -> (Vec<usize>, bool) {
        let places = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Parameter(number) => Some(*number),
            Piece::Text(_) | Piece::Group(_) | Piece::Before | Piece::After => None,
        });
        (places.collect(), matches!(self.pieces.first(), Some(Piece::Parameter(_))))
    }

    /// Reads `\0` … `\9`, `\&`, `` \` ``, `\'`, `\k<name>` and `\\`; any other escape stays as it is.
    ///
    /// # Errors
    /// `\k<name>` of a group that the pattern does not have: Ruby raises when the entry is first used.
    pub(super) fn parse(text: &str, pattern: &Translated) -> Result<Template, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(position) = rest.find('\\') {
            plain.push_str(&rest[..position]);
            rest = &rest[position + 1..];
            let Some(c) = rest.chars().next() else {
                plain.push('\\');
                break;
            };
            let mut length = c.len_utf8();
            let piece = match c {
                '\\' => {
                    plain.push('\\');
                    None
                }
                '0' | '&' => Some(Piece::Group(0)),
                // Beside named groups Ruby drops a number without a word.
                '1'..='9' if pattern.names.is_empty() => Some(Piece::Group(c as usize - '0' as usize)),
                '1'..='9' => None,
                '`' => Some(Piece::Before),
                '\'' => Some(Piece::After),
                'k' if rest[1..].starts_with('<') => {
                    let Some(end) = rest.find('>') else {
                        return Err("its command line has a \\k< without >".into());
                    };
                    let name = &rest[2..end];
                    let Some((_, number)) = pattern.names.iter().find(|(n, _)| n == name) else {
                        return Err(format!(
                            "its command line names a group {name} that the pattern does not have"
                        ));
                    };
                    length = end + 1;
                    Some(Piece::Group(*number))
                }
                c => {
                    plain.push('\\');
                    plain.push(c);
                    None
                }
            };
            rest = &rest[length..];
            if let Some(piece) = piece {
                if !plain.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                }
                pieces.push(piece);
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Template { pieces })
    }

    /// Numbers of the groups that it copies.
    pub(super) fn groups(&self) -> impl Iterator<Item = usize> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Group(number) => Some(*number),
            _ => None,
        })
    }

    /// Appends the template to `out`, filled from one match in `subject`. With `quote`, everything copied is quoted
    /// for the shell. `values` are those of the parameters.
    pub(super) fn fill(
        &self,
        out: &mut String,
        subject: &str,
        found: &Captures<'_, str>,
        quote: bool,
        values: &[String],
    ) {
        let (start, end) = found.get(0).map_or((0, 0), |m| (m.start(), m.end()));
        for piece in &self.pieces {
            let copied = match piece {
                Piece::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                // A group that took no part gives nothing, as does one that is not there.
                Piece::Group(number) => match found.get(*number) {
                    Some(group) => group.as_str(),
                    None => continue,
                },
                Piece::Before => &subject[..start],
                Piece::After => &subject[end..],
                Piece::Parameter(number) => match values.get(*number) {
                    Some(value) => value,
                    None => continue,
                },
            };
            if quote { push_quoted(out, copied) } else { out.push_str(copied) }
        }
    }

    /// Says why quoting the copied parts would not keep them out of the shell's hands, if so.
    ///
    /// Quotes protect only where the shell is outside of quotes, comments, back quotes and here-documents.
    pub(super) fn quoting_fails(&self) -> Option<&'static str> {
        #[derive(PartialEq, Clone, Copy)]
        enum At {
            Plain,
            Single,
            Double,
            Back,
            Comment,
        }
        let mut at = At::Plain;
        let mut escaped = false;
        let mut word_start = true;
        let mut less = 0;
        let mut parentheses = 0;
        for piece in &self.pieces {
            let Piece::Text(text) = piece else {
                if escaped {
                    return Some("a group follows a backslash");
                }
                match at {
                    At::Plain => {}
                    At::Single | At::Double => return Some("a group stands inside quotes"),
                    At::Back => return Some("a group stands inside back quotes"),
                    At::Comment => return Some("a group stands in a comment"),
                }
                word_start = false;
                less = 0;
                parentheses = 0;
                continue;
            };
            for c in text.chars() {
                if escaped {
                    escaped = false;
                    word_start = false;
                    continue;
                }
                less = if c == '<' && at == At::Plain { less + 1 } else { 0 };
                if less == 2 {
                    return Some("it has a here-document");
                }
                parentheses = if c == '(' && at == At::Plain { parentheses + 1 } else { 0 };
                if parentheses == 2 {
                    return Some("it has an arithmetic expression");
                }
                at = match (at, c) {
                    (At::Comment, '\n') => At::Plain,
                    (At::Comment, _) => At::Comment,
                    (At::Single, '\'') => At::Plain,
                    (At::Single, _) => At::Single,
                    (_, '\\') => {
                        escaped = true;
                        at
                    }
                    (At::Double, '"') => At::Plain,
                    (At::Double, _) => At::Double,
                    (At::Back, '`') => At::Plain,
                    (At::Back, _) => At::Back,
                    (At::Plain, '\'') => At::Single,
                    (At::Plain, '"') => At::Double,
                    (At::Plain, '`') => At::Back,
                    (At::Plain, '#') if word_start => At::Comment,
                    (At::Plain, _) => At::Plain,
                };
                word_start = c.is_ascii_whitespace() || matches!(c, ';' | '&' | '|' | '(' | ')');
            }
        }
        None
    }
}

/// Appends `text` as one word of the shell.
fn push_quoted(out: &mut String, text: &str) {
    out.push('\'');
    for (index, part) in text.split('\'').enumerate() {
        if index > 0 {
            out.push_str(r"'\''");
        }
        out.push_str(part);
    }
    out.push('\'');
}
