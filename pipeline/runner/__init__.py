"""Running the graph on this machine."""
