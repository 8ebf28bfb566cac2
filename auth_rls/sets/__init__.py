"""The sets behind `select`: how they are read, and how changes of rows move them.

Never decides who may see a row.
"""
