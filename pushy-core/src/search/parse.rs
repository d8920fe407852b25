//! The text of a query → what it asks for.

use super::Document;
use super::document::Entry;
use super::pattern::{Pattern, Places, Step};

/// The longest query, in bytes.
pub const MAX_QUERY: usize = 65_536;
/// The most words, phrases and ranges in one query, as in Lucene.
pub const MAX_TERMS: usize = 1024;
/// How deep parentheses and signs may nest.
pub const MAX_DEPTH: usize = 64;

/// The field of what names none.
const DEFAULT_FIELD: &str = "text";

/// Why a text is no query, and where. The text never holds more of the query than one character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {reason}")]
pub struct BadQuery {
    /// Which character, counted from 1; one past the last means the end.
    pub position: usize,
    /// What is wrong there, and the way out.
    pub reason: String,
}

/// One end of a range; `None` is `*`.
type Bound = Option<String>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Exactly(String),
    Like(Pattern),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    In(Field, Box<Node>),
    Like(Pattern),
    Range { from: Bound, to: Bound, with_from: bool, with_to: bool },
}

/// A query that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query(Node);

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`BadQuery`], with the place.
    pub fn parse(text: &str) -> Result<Query, BadQuery> {
        let mut parser = Parser { text, at: 0, depth: 0, terms: 0 };
        if text.len() > MAX_QUERY {
            return Err(parser.bad(0, format!("a query has at most {MAX_QUERY} bytes")));
        }
        let node = parser.alternatives(false)?;
        match parser.peek()? {
            Token::End => Ok(Query(node)),
            Token::Sign(c) => Err(parser.unexpected(c)),
            _ => Err(parser.bad(parser.at, "something after the end of the query".into())),
        }
    }

    /// Whether a node is among those asked for.
    pub fn matches(&self, document: &Document) -> bool {
        Search { document, places: &mut Places::default() }.node(&self.0)
    }

    /// Those of `nodes` that are asked for, in their order.
    pub(super) fn find<'a, T>(
        &self,
        nodes: impl Iterator<Item = (T, &'a Document)>,
    ) -> Vec<(T, &'a Document)> {
        let mut places = Places::default();
        nodes.filter(|(_, document)| Search { document, places: &mut places }.node(&self.0)).collect()
    }
}

/// A query being compared with one node.
struct Search<'a> {
    document: &'a Document,
    places: &'a mut Places,
}

impl Search<'_> {
    fn node(&mut self, node: &Node) -> bool {
        let document = self.document;
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.node(node)),
            Node::Any(nodes) => nodes.iter().any(|node| self.node(node)),
            Node::Not(node) => !self.node(node),
            Node::In(Field::Exactly(key), value) => self.values(value, &document.under(key)),
            Node::In(Field::Like(pattern), value) if pattern.is_any() => match &**value {
                Node::Like(pattern) if !pattern.may_match(document.folded()) => false,
                value => self.values(value, document.entries()),
            },
            Node::In(Field::Like(pattern), value) => {
                let fits = |entry: &&Entry| pattern.matches(document.folded_key(entry), self.places);
                let entries: Vec<Entry> = document.entries().iter().filter(fits).copied().collect();
                self.values(value, &entries)
            }
            Node::Like(_) | Node::Range { .. } => self.values(node, &document.under(DEFAULT_FIELD)),
        }
    }

    fn values(&mut self, node: &Node, entries: &[Entry]) -> bool {
        let document = self.document;
        match node {
            Node::All(nodes) => nodes.iter().all(|node| self.values(node, entries)),
            Node::Any(nodes) => nodes.iter().any(|node| self.values(node, entries)),
            Node::Not(node) => !self.values(node, entries),
            Node::Like(pattern) if pattern.is_any() => !entries.is_empty(),
            Node::Like(pattern) => {
                entries.iter().any(|entry| pattern.matches(document.folded_value(entry), self.places))
            }
            Node::Range { from, to, with_from, with_to } => entries.iter().any(|entry| {
                let value = document.value(entry);
                let above = from.as_deref().is_none_or(|from| from < value || *with_from && from == value);
                let below = to.as_deref().is_none_or(|to| value < to || *with_to && value == to);
                above && below
            }),
            // The parser refuses a field within a field's value.
            Node::In(..) => false,
        }
    }
}

/// What comes next, white space left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    /// A sign of the language.
    Sign(char),
    And,
    Or,
    Not,
    /// A word begins.
    Word,
    End,
}

/// How a clause of a list counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Occur {
    May,
    Must,
    MustNot,
}

struct Parser<'a> {
    text: &'a str,
    /// In bytes, on a character's boundary.
    at: usize,
    depth: usize,
    terms: usize,
}

impl<'a> Parser<'a> {
    fn bad(&self, at: usize, reason: String) -> BadQuery {
        BadQuery { position: self.text.get(..at).map_or(1, |before| before.chars().count() + 1), reason }
    }

    fn unexpected(&self, c: char) -> BadQuery {
        let reason = match c {
            ':' => "a ':' without a field before it; write '\\:' for one that belongs to a word".to_owned(),
            ')' => "a ')' that nothing opened; write '\\)' for one that belongs to a word".to_owned(),
            '^' => "'^' must follow a word, a phrase or a group".to_owned(),
            c => format!("unexpected '{c}'; write '\\{c}' for one that belongs to a word"),
        };
        self.bad(self.at, reason)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn peek(&mut self) -> Result<Token, BadQuery> {
        self.skip_space();
        let rest = self.rest();
        let Some(c) = rest.chars().next() else { return Ok(Token::End) };
        if rest.starts_with("&&") {
            return Ok(Token::And);
        }
        if rest.starts_with("||") {
            return Ok(Token::Or);
        }
        if matches!(c, '"' | '+' | '-' | '!' | '(' | ')' | '{' | '}' | '[' | ']' | '^' | ':') {
            return Ok(if c == '!' { Token::Not } else { Token::Sign(c) });
        }
        Ok(match &rest[..self.word_length()?] {
            "AND" => Token::And,
            "OR" => Token::Or,
            "NOT" => Token::Not,
            _ => Token::Word,
        })
    }

    /// Bytes of the word that begins here.
    fn word_length(&self) -> Result<usize, BadQuery> {
        let rest = self.rest();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            if c == '\\' {
                if chars.next().is_some() {
                    continue;
                }
                let reason = "a '\\' at the end; write '\\\\' for one that belongs to a word";
                return Err(self.bad(self.at + at, reason.into()));
            }
            match c {
                '"' | '!' | '(' | ')' | '{' | '}' | '[' | ']' | '^' | ':' => return Ok(at),
                '&' if rest[at..].starts_with("&&") => return Ok(at),
                '|' if rest[at..].starts_with("||") => return Ok(at),
                c if c.is_whitespace() => return Ok(at),
                _ => {}
            }
        }
        Ok(rest.len())
    }

    /// Goes past a token other than a word.
    fn take(&mut self, token: Token) {
        self.at += match token {
            Token::Sign(_) => 1,
            Token::And if self.rest().starts_with("AND") => 3,
            Token::And | Token::Or => 2,
            Token::Not if self.rest().starts_with("NOT") => 3,
            Token::Not => 1,
            Token::Word | Token::End => 0,
        };
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, BadQuery>) -> Result<T, BadQuery> {
        if self.depth == MAX_DEPTH {
            return Err(self.bad(self.at, format!("more than {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// Clauses joined by `OR` or by nothing, up to `)` or the end.
    ///
    /// Joined by words, they are logic. In a list without words between, a clause with `-`, `!` or `NOT` is
    /// one that nothing may match, as people mean it and Chef Infra Server does it; `+` is one that everything must.
    fn alternatives(&mut self, in_field: bool) -> Result<Node, BadQuery> {
        let mut clauses: Vec<(Occur, Node)> = Vec::new();
        let mut joined = false;
        loop {
            let (occur, node) = self.conjunction(in_field)?;
            let next = self.peek()?;
            let joins = next == Token::Or;
            clauses.push(match occur {
                // A negation beside a written OR is an alternative like any other.
                Occur::MustNot if joined || joins => (Occur::May, Node::Not(Box::new(node))),
                occur => (occur, node),
            });
            match next {
                Token::End | Token::Sign(')') => break,
                Token::Or => self.take(next),
                _ => {}
            }
            joined = joins;
        }
        let required = clauses.iter().any(|(occur, _)| *occur == Occur::Must);
        let (mut must, mut may) = (Vec::new(), Vec::new());
        for (occur, node) in clauses {
            match occur {
                Occur::May => may.push(node),
                Occur::Must => must.push(node),
                Occur::MustNot => must.push(Node::Not(Box::new(node))),
            }
        }
        if !may.is_empty() && !required {
            must.push(one_or(may, Node::Any));
        }
        Ok(one_or(must, Node::All))
    }

    /// Clauses joined by `AND`. A sign counts for the list only if the clause stands alone.
    fn conjunction(&mut self, in_field: bool) -> Result<(Occur, Node), BadQuery> {
        let (occur, first) = self.signed(in_field)?;
        if self.peek()? != Token::And {
            return Ok((occur, first));
        }
        let plain = |occur, node| if occur == Occur::MustNot { Node::Not(Box::new(node)) } else { node };
        let mut all = vec![plain(occur, first)];
        while self.peek()? == Token::And {
            self.take(Token::And);
            let (occur, node) = self.signed(in_field)?;
            all.push(plain(occur, node));
        }
        Ok((Occur::May, Node::All(all)))
    }

    /// A clause with the signs before it.
    fn signed(&mut self, in_field: bool) -> Result<(Occur, Node), BadQuery> {
        let token = self.peek()?;
        match token {
            Token::Sign('+') => {
                self.take(token);
                let node = self.deeper(|p| p.signed(in_field))?;
                Ok(match node {
                    (Occur::MustNot, node) => (Occur::MustNot, node),
                    (_, node) => (Occur::Must, node),
                })
            }
            Token::Sign('-') | Token::Not => {
                self.take(token);
                Ok(match self.deeper(|p| p.signed(in_field))? {
                    (Occur::MustNot, node) => (Occur::May, node),
                    (_, node) => (Occur::MustNot, node),
                })
            }
            _ => Ok((Occur::May, self.clause(in_field)?)),
        }
    }

    fn clause(&mut self, in_field: bool) -> Result<Node, BadQuery> {
        let token = self.peek()?;
        let node = match token {
            Token::Sign('(') => {
                self.take(token);
                let node = self.deeper(|p| p.alternatives(in_field))?;
                match self.peek()? {
                    Token::Sign(')') => self.take(Token::Sign(')')),
                    _ => return Err(self.bad(self.at, "a ')' is missing".into())),
                }
                node
            }
            Token::Sign('"') => {
                self.count(self.at)?;
                Node::Like(self.phrase()?)
            }
            Token::Sign('[' | '{') => {
                self.count(self.at)?;
                self.range()?
            }
            Token::Word => return self.word(in_field),
            Token::Sign(c) => return Err(self.unexpected(c)),
            Token::And | Token::Or | Token::Not => {
                return Err(self.bad(self.at, "AND or OR needs something on both sides".into()));
            }
            Token::End => return Err(self.bad(self.at, "something to look for is missing".into())),
        };
        self.boost()?;
        Ok(node)
    }

    fn count(&mut self, at: usize) -> Result<(), BadQuery> {
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.bad(at, format!("more than {MAX_TERMS} words, phrases and ranges")));
        }
        Ok(())
    }

    /// A word, or a field with its value.
    fn word(&mut self, in_field: bool) -> Result<Node, BadQuery> {
        let start = self.at;
        let (pattern, literal) = self.pattern()?;
        if self.peek()? != Token::Sign(':') {
            self.count(start)?;
            self.boost()?;
            return Ok(Node::Like(pattern));
        }
        if in_field {
            let reason = "a field within another field's value; write '\\:' for a ':' that belongs to a word";
            return Err(self.bad(self.at, reason.into()));
        }
        self.take(Token::Sign(':'));
        let field = literal.map_or(Field::Like(pattern), Field::Exactly);
        let value = self.deeper(|p| {
            Ok(match p.signed(true)? {
                (Occur::MustNot, node) => Node::Not(Box::new(node)),
                (_, node) => node,
            })
        });
        let value = value.map_err(|bad| {
            match self.rest().is_empty() && bad.position > self.text.chars().count() {
                true if self.text[start..].trim_end().ends_with(':') => {
                    BadQuery { reason: "the field's value is missing; write '*' for any".into(), ..bad }
                }
                _ => bad,
            }
        })?;
        Ok(Node::In(field, Box::new(value)))
    }

    /// The word that begins here, and its text if it has no wildcard.
    fn pattern(&mut self) -> Result<(Pattern, Option<String>), BadQuery> {
        let length = self.word_length()?;
        let (start, text) = (self.at, &self.rest()[..length]);
        self.at += length;
        self.steps(start, text, false)
    }

    fn steps(&self, start: usize, text: &str, quoted: bool) -> Result<(Pattern, Option<String>), BadQuery> {
        let mut pattern = Pattern::default();
        let mut literal = Some(String::new());
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            let step = match c {
                '*' => Step::Any,
                '?' => Step::One,
                '~' if !quoted => {
                    let reason = "similar words ('~') cannot be searched; write '\\~' for the character";
                    return Err(self.bad(start + at, reason.into()));
                }
                c => {
                    // A lone '\' at the end was refused with the word's or the quote's length.
                    let c = if c == '\\' { chars.next().map_or('\\', |(_, c)| c) } else { c };
                    pattern.push(c);
                    if let Some(literal) = &mut literal {
                        literal.push(c);
                    }
                    continue;
                }
            };
            literal = None;
            if !(step == Step::Any && pattern.0.last() == Some(&Step::Any)) {
                pattern.0.push(step);
            }
        }
        Ok((pattern, literal))
    }

    /// What stands between two quotes; goes past the second. Escapes are still in it.
    fn quoted(&mut self) -> Result<(usize, &'a str), BadQuery> {
        let open = self.at;
        self.at += 1;
        let (start, rest) = (self.at, self.rest());
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += at + 1;
                    return Ok((start, &rest[..at]));
                }
                '\\' => {
                    chars.next();
                }
                _ => {}
            }
        }
        Err(self.bad(open, "the quote that begins here does not end".into()))
    }

    /// Words with a gap between.
    fn phrase(&mut self) -> Result<Pattern, BadQuery> {
        let (start, text) = self.quoted()?;
        let mut pattern = Pattern::default();
        let mut at = 0;
        while at < text.len() {
            let word = &text[at..];
            let length = quoted_word(word);
            if length > 0 {
                if !pattern.0.is_empty() {
                    pattern.0.push(Step::Gap);
                }
                pattern.0.extend(self.steps(start + at, &word[..length], true)?.0.0);
            }
            at += length + word[length..].chars().next().map_or(0, char::len_utf8);
        }
        Ok(pattern)
    }

    fn range(&mut self) -> Result<Node, BadQuery> {
        let open = self.at;
        let with_from = self.rest().starts_with('[');
        self.at += 1;
        let from = self.bound(open)?;
        self.skip_space();
        let to = self.rest();
        if !to.starts_with("TO") || !to[2..].starts_with(char::is_whitespace) {
            return Err(self.bad(self.at, "TO is missing between the ends of a range".into()));
        }
        self.at += 2;
        let to = self.bound(open)?;
        self.skip_space();
        let with_to = match self.rest().chars().next() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.bad(self.at, "a range ends with ']' or '}'".into())),
        };
        self.at += 1;
        Ok(Node::Range { from, to, with_from, with_to })
    }

    /// One end of a range: up to white space or the end of the range, or in quotes.
    fn bound(&mut self, open: usize) -> Result<Bound, BadQuery> {
        self.skip_space();
        let text = if self.rest().starts_with('"') {
            self.quoted()?.1
        } else {
            let rest = self.rest();
            let mut chars = rest.char_indices();
            let length = loop {
                match chars.next() {
                    Some((_, '\\')) => {
                        chars.next();
                    }
                    Some((at, c)) if c.is_whitespace() || matches!(c, ']' | '}' | '"') => break at,
                    Some(_) => {}
                    None => break rest.len(),
                }
            };
            self.at += length;
            match &rest[..length] {
                "" => {
                    let at = if rest.is_empty() { open } else { self.at };
                    return Err(self.bad(at, "a range is written [FROM TO TO]; '*' stands for any".into()));
                }
                "*" => return Ok(None),
                text => text,
            }
        };
        let mut bound = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            bound.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
        }
        Ok(Some(bound))
    }

    /// `^2` after something: for ranking, of which there is none here.
    fn boost(&mut self) -> Result<(), BadQuery> {
        if self.peek()? != Token::Sign('^') {
            return Ok(());
        }
        self.take(Token::Sign('^'));
        let length = match self.peek()? {
            Token::Word => self.word_length()?,
            _ => 0,
        };
        if self.rest()[..length].parse::<f64>().is_err() {
            return Err(self.bad(self.at, "a number must follow '^'".into()));
        }
        self.at += length;
        Ok(())
    }
}

/// Bytes of the word that a phrase begins with.
fn quoted_word(text: &str) -> usize {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => {
                chars.next();
            }
            c if c.is_whitespace() => return at,
            _ => {}
        }
    }
    text.len()
}

fn one_or(mut nodes: Vec<Node>, many: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.pop(), nodes.is_empty()) {
        (Some(one), true) => one,
        (last, _) => {
            nodes.extend(last);
            many(nodes)
        }
    }
}
