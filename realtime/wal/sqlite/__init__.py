"""The log on SQLite: `vendor` implements `realtime.wal.vendor.Vendor`; the other modules are its
parts: trigger text, catalog, capture of the actor, numbering, change detection and evidence.

Never decides what is captured.
"""
