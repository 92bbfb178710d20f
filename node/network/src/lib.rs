//! Pod network, services and DNS of one node.
