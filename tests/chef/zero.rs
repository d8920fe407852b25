//! chef-zero.
