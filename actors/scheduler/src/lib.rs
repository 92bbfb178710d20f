//! The scheduler: framework, plugins, columns, and its shell.
