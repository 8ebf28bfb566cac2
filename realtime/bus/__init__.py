"""The bus between processes: one message of bytes on the channel layer per batch.

Never reads the messages that it carries, and does not guarantee delivery: the Dispatcher does.
"""
