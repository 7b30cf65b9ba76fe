"""Measurements of the project's claims, one file each. `make campaign` runs all at full size and prints the tables."""
