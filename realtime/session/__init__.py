"""The state of one socket, pure: a message and the time go in, effects come out.

Never performs an effect: no I/O, no clock, no Django.
"""
