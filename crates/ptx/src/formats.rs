//! Conversions between f32 and the narrow formats, in PTX's rounding modes.
