"""Versions of models on disk and in memory, as TensorFlow Serving's manager keeps them."""
