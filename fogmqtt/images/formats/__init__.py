"""Readers of image formats, one module each. `fogmqtt.images.reader` chooses among them."""
