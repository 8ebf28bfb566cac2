"""One WebSocket: its handshake, credentials and origin, and the consumer that performs what the
session decides.

Never decides what the protocol says (that is `realtime.session`) and never matches events.
"""
