"""The steps of the pipeline and the pure functions that they call."""
