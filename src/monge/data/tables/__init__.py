"""Tables as data: read, columns chosen, rows made numbers."""
