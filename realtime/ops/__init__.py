"""Figures for operators: status, metrics, and whether the channel layer answers.

Changes nothing.
"""
