"""Real architectures: where K and R are, and how redundant every block is."""
