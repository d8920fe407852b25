//! The ZMTP peer: the rules of decision 12, and recorded handshakes cut and bent in every way. Nonsense of all kinds is
//! the business of `tests/zmtp_fuzz`.

mod ends;
mod forger;
mod recorded;
mod rules;
