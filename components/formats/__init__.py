"""File and message formats read without TensorFlow."""
