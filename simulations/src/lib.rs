//! The deterministic world: seeded clock, disk and network behind Env.
