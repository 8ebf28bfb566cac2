"""Helpers that know nothing of this system: database threads, time slices, queues, token
buckets, counters.

Never imports another package of realtime.
"""
