"""TCP, one idea a file; connection.py puts them together."""
