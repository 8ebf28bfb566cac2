"""Helpers without knowledge of the system's boxes: database threads, time slices, queues, fair
shares, token buckets, counters.

Never imports another package of realtime.
"""
