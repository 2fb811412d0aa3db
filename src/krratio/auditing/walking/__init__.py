"""One forward on shapes, written down operation by operation."""
