"""Helpers that tests of every level share; no test is in here."""
