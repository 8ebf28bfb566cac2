"""What SQLite needs: the text of its capture triggers and the triggers as they are.

Never decides what is captured.
"""
