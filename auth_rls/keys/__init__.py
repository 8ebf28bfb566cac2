"""Keys that verify tokens: a fixed set, and one that is fetched from a URL.

Never reads a token.
"""
