"""The policy language, pure: parse, validate, bind, simplify, evaluate, index, describe.

Never reads a database: no I/O, no clock, no Django.
"""
