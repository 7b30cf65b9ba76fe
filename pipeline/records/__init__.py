"""ML Metadata: what ran, what came of it, what may go."""
