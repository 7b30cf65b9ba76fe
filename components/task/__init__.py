"""The tasks as transducers, and the rules for a record; standard library only."""
