"""The rules, without I/O: the way of a message as values and protocols."""
