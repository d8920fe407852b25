//! The ZMTP peer: the rules of decision 12, recorded handshakes cut and bent in every way, and nonsense.

mod ends;
mod rules;
