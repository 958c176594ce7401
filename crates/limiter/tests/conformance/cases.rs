//! Single cases that traces do not reach.
