"""The log on SQLite: `vendor` is what `realtime.wal.vendor.Vendor` asks for; trigger text, catalog,
capture of the actor, numbering and change detection stand beside it.

Never decides what is captured.
"""
