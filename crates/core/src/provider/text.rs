//! Durations, dates and numbers as providers write them.
