"""Decisions with the database at hand: which rows a subject may see and write, and the record of
what policies refused.

Never parses a policy and never renders a page.
"""
