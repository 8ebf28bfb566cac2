"""A board that two people see move: the demo of Rowcast."""
