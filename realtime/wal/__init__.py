"""The WAL: which tables are published, the triggers that capture their changes, entries and the
head.

Never numbers an entry and never delivers one.
"""
