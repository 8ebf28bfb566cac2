"""Explanations: which policies apply to a row, which clause decided, and the answer of each door.

Never grants anything; it repeats the decisions of `auth_rls.access` and says why.
"""
