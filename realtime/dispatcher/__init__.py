"""The Dispatcher: takes batches from the bus, finds what is missing, and hands each event to
those who may have it.

Never decides who may see a row, and never writes to a socket.
"""
