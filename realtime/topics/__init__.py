"""Topics: broadcasts, the rights on private topics, and who listens.

Never reads a table of the project; `realtime.subscriptions` handles row changes.
"""
