"""What a subscriber gets before it is live: the changes after a cursor, and rows as they are
now.

Never numbers and never changes a subscription.
"""
