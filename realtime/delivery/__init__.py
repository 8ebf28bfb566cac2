"""A frame made once and the ways to a socket: outboxes, groups of sockets, and the servers
behind them.

Never knows what a frame says or who may have it.
"""
