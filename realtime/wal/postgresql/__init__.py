"""What PostgreSQL needs: the text of its capture triggers, the values of its types, and the
triggers as they are.

Never decides what is captured.
"""
