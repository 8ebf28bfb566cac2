"""The Dispatcher: takes batches from the bus, finds what is missing, and hands each event to the
sockets of the subscribers it concerns.

Never decides what a subscriber may see.
"""
