"""Frames of cameras and files, from the source to the picture in hand."""
