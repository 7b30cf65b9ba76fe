"""ML Metadata: runs, verdicts, lineage, and the removal of old artifacts."""
