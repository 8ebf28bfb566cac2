"""The log on PostgreSQL: `vendor` is what `realtime.wal.vendor.Vendor` asks for; trigger text,
values of its types, catalog, capture of the actor, numbering and visibility stand beside it.

Never decides what is captured.
"""
