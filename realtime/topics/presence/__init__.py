"""Presence: the members of topics, in the table, in this process, and as last sent to clients.

Never decides who may view presence or track; `realtime.topics.rights` does.
"""
