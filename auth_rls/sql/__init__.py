"""The policy language in SQL: columns of models, predicates as conditions, one dialect per
vendor.

Decides nothing of its own: SQL and `auth_rls.predicates` give the same verdicts.
"""
