//! Remote-command and port-forward framing, sans-IO: SPDY/3.1 and WebSocket channels.
