"""The certificate, its checker (the trusted base), and the search for proofs and counterexamples."""
