"""The Python API: `fogmqtt.connect` gives a program a `Fog`, which processes its images."""
