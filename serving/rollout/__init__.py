"""Rolling a new version out, and back."""
