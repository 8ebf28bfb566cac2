"""What a subscriber gets before it is live: the changes after a cursor, and the present rows.

Never numbers and never changes a subscription.
"""
