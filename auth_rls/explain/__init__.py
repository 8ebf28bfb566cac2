"""Explanations: which policies apply to a row, which clause decided, and what each door answers.

Never grants anything; it repeats the decisions of `auth_rls.access` and says why.
"""
