"""The wire, pure: frames of both serializers, join payloads, filters, cursors, errors and close
codes.

Never keeps state: no I/O, no clock, no Django.
"""
