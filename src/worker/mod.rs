//! One core: the turn that binds the engine to the kernel.
