//! Number formats, rounding and bulk conversion.
