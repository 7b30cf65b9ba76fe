"""Running a SavedModel: loading, decoding, batching, predicting."""
