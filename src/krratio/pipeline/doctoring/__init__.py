"""Whether an installation can be trusted: what is installed and found, and what it computes."""
