"""Compares a model server with the recorded behaviour of TensorFlow Serving 2.16.1: `python -m tests.conformance`."""
