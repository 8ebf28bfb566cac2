"""Frames made once, and the ways to a socket: outboxes, groups of sockets, and adapters for the
servers behind them.

Never reads what a frame says and never decides who gets it.
"""
