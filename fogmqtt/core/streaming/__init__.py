"""Decisions about frames of live streams, in virtual time: no pixels, no clock, no I/O."""
