"""How each database writes one comparison: `base` is the interface, with a module for each vendor.

`registry` returns the dialect of a connection. No other module of this app checks for a vendor.
"""
