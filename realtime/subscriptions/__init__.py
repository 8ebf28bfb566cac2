"""The Subscription Manager: who asked for what, which policies hold for them, and whom an event
concerns.

Never reads from a socket and never writes to one.
"""
