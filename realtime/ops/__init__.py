"""What an operator looks at: status, metrics, and whether the channel layer answers.

Never changes anything.
"""
