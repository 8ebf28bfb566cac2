"""What one process runs: the hub that wires its parts, the registry of processes and their
heartbeat, maintenance, pruning, the worker, shutdown.

Never speaks the protocol to a client.
"""
