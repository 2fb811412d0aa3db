"""Layers, blocks and linear runs, as paths in a walk."""
