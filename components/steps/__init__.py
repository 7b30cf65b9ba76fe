"""The TFX components, thin, and the functions that they run on Beam."""
