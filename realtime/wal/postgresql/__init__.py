"""The log on PostgreSQL: `vendor` implements `realtime.wal.vendor.Vendor`; the other modules are
its parts: trigger text, values of types, catalog, capture of the actor, numbering and visibility.

Never decides what is captured.
"""
