"""The reparameterization lemma on whole networks."""
