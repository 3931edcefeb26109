"""The command line: it alone owns the console, reads flags and files, and calls the library."""
