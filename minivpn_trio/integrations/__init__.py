"""Thin adapters for libraries that have a hook for somebody else's connections."""
