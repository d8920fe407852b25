//! A real goiardi.
