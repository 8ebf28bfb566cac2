"""The WAL: which tables are published, the triggers that capture their changes, entries and the
head, and the interface that each database implements (`vendor`).

Never numbers an entry and never delivers one.
"""
