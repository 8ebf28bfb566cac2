"""Policies as PostgreSQL's own row-level security, for programs that use SQL directly.

Owns the statements and their installation. It decides nothing: the policies are the same as at
every other door.
"""
