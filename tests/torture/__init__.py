"""An app whose handlers are tried while everything around them fails. See `handlers`."""
