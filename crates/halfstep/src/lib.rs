//! Mixed-precision training with evidence.
