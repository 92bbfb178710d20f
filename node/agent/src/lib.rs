//! The node agent: one state machine per pod, probes, status, the kubelet's API.
