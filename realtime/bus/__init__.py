"""The bus between processes: our own bytes on the channel layer, one message per batch.

Never looks into what it carries, and never promises that it arrives: the Dispatcher does.
"""
