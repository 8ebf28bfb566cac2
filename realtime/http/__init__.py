"""The HTTP views: broadcasts by POST, health and metrics.

Never reads the log and never talks to a socket; it hands requests to `realtime.process`.
"""
