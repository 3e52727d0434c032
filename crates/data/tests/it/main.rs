//! Integration tests in one program, which is linked once.

mod inspect;
mod load;
mod spec;
