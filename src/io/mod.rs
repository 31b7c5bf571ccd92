//! The kernel: the `Io` trait and its io_uring implementation. The only module that knows io_uring.
