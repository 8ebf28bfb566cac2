"""Presence: who is in a topic, as stored, as known to this process, and as clients were told.

Never decides who may watch or track; `realtime.topics.rights` says it.
"""
