"""The log for Python code: a subscriber without a socket.

Owns what code may ask for, the follower of a process that is no server, and the iterators. What a
subject is shown, and in which order, is decided by the subscription manager, as for sockets.
"""
