//! Each operation and its races, on a real ring.
