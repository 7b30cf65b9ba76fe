"""The tasks as transducers, and the rules that a record has to keep; standard library only."""
