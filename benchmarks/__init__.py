"""Measurements of the claims, one file each. `make campaign` runs all at full size and prints the tables."""
