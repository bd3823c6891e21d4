"""Home Assistant: what it is told of this gateway, so that it shows all of it by itself."""
