"""The commands of the command line that need the pipeline."""
