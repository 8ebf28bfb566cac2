"""Decisions that query the database: which rows a subject may see and write, and the audit log of
what policies refused.

Never parses a policy and never renders a page.
"""
