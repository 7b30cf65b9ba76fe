"""Training and certification."""
