//! Datasets, loaders and preprocessing.
