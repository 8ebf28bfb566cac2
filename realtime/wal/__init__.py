"""The WAL: which tables are published, the triggers that capture their changes, entries and the
head, and what is asked of each database (`vendor`).

Never numbers an entry and never delivers one.
"""
