//! Integration tests in one program, which is linked once.

mod folders;
mod inspect;
mod load;
mod spec;
mod table_forms;
mod tables;
