"""The page and the HTTP API: a process of its own, which is an MQTT client of a gateway."""
