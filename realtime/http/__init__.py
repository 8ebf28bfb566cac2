"""The HTTP views: broadcasts by POST, health and metrics.

Never reads the log and never writes to a socket; it passes requests to `realtime.process`.
"""
