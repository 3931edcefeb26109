"""Files in and out: one module per format, one registry that chooses among them by suffix."""
