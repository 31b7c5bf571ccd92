//! The arena: the only memory that payload ever lies in.
