"""Who asks: subjects, the tokens they come from, and the subject of the current request.

Never decides what a subject may see.
"""
