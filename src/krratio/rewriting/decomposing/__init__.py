"""Trained kernels as Tucker, CP and tensor-train blocks."""
