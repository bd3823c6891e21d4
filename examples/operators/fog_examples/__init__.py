"""Operators for fogmqtt."""
