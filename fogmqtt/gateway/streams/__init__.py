"""Live streams: frames from a source go through the fleet, and their results to outputs."""
