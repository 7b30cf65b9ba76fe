"""Versions of models on disk and in memory, managed as in TensorFlow Serving."""
