//! The only memory that cores share: lock-free and model-checked.
