//! Whether parts of a pattern can match nothing: engines disagree on what a repeated empty group captures.

/// Whether what has been read of a group can match nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// Some alternative before this one can.
    alternative: bool,
    /// This alternative can, up to the last atom.
    before: bool,
    /// The last atom can.
    pub(super) atom: bool,
    /// The last atom holds captures.
    pub(super) captures: bool,
}

impl Extent {
    /// Nothing read yet.
    pub(super) const NEW: Extent = Extent { alternative: false, before: true, atom: true, captures: false };

    pub(super) fn next_atom(&mut self, empty: bool, captures: bool) {
        self.before &= self.atom;
        self.atom = empty;
        self.captures = captures;
    }

    pub(super) fn next_alternative(&mut self) {
        self.alternative = self.can_be_empty();
        self.before = true;
        self.atom = true;
        self.captures = false;
    }

    pub(super) fn can_be_empty(self) -> bool {
        self.alternative || (self.before && self.atom)
    }
}
