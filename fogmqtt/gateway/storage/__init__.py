"""What a serving gateway keeps across restarts; `api` documents the interface."""
