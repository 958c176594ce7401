//! Texts counted without keeping them.
