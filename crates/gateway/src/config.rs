//! Configuration, read in two steps: what the file says (`RawConfig`), then what it means (`Config`).
