"""The Subscription Manager: what each channel asked for, by which policies, and which channels an
event concerns.

Never reads from a socket and never writes to one.
"""
