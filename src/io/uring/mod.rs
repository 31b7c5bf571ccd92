//! The io_uring implementation of `Io`.
