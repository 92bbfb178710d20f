//! The replicated MVCC state machine: pure, no async, no Kubernetes.
