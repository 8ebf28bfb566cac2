"""Capture: what is published, the triggers that record it, and the numbering of the log."""

from __future__ import annotations
