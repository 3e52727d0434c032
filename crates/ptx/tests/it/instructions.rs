//! Instructions one by one.
