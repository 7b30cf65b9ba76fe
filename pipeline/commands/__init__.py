"""The commands that need the pipeline."""
