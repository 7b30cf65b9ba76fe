"""What is claimed, measured: one file a claim. `make campaign` runs them all at full size and prints the tables."""
