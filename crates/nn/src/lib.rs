//! Layers and reference models.
