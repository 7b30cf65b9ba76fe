"""Everything after the push: the model server, its client and the prober."""
