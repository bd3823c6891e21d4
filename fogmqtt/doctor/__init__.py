"""Finds what keeps a fog from working, and says how to mend it."""
