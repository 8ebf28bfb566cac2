"""How each database writes one comparison: `base` is the interface, one module for each vendor.

`registry` gives the dialect of a connection. No other module of this app asks for a vendor.
"""
