"""Thin TFX components, and the functions that they run on Beam."""
