//! The Kubernetes object model: kind registry, defaults, validation, selectors, quantities, tables.
