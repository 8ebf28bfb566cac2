"""Topics: broadcasts, the rights on private topics, and who listens.

Never knows a table of the project; row changes are the business of `realtime.subscriptions`.
"""
