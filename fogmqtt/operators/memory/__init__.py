"""Operators with memory, for streams."""
