"""The Subscription Manager: the requests of channels, the policies bound to them, and the channels
that an event concerns.

Never reads from a socket and never writes to one.
"""
