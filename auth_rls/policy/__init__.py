"""Policies: their definition, those declared in code, and how permissive and restrictive ones
combine.

Never reads a row.
"""
