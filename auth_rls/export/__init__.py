"""Policies as PostgreSQL's own row security, so that programs that speak SQL meet the same wall."""
