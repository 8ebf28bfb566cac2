"""The Event Log: numbers WAL entries, keeps the newest events in memory and reads the others
from the table.

Never filters, never authorises, never delivers.
"""
