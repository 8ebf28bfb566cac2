"""Subjects, the tokens and sessions they come from, and the subject of the current request.

Never decides what a subject may see.
"""
