"""The demo of Rowcast: a board of tasks that people share."""
