"""Webhooks: row changes as signed HTTP requests to other servers.

A webhook is a row. A cursor in the log turns the changes that it asks for into deliveries, in one
transaction with its own move, and a sender posts them. Whatever a receiver does costs its own
webhook alone.
"""
