"""The GRU in TensorFlow, its fast forms and its export."""
