//! The graph: operations, differentiation, precision, memory plan and the f64 reference interpreter.
