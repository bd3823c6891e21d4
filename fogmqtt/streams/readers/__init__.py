"""The ways to read a source. They run in the process of the stream."""
