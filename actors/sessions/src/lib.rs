//! NodeSession: the only door of a node; its messages become API requests as system:node:NAME.
