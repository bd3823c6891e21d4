"""From a configuration to what a gateway or device runs with: for the command line and programs."""
