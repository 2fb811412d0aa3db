"""Arithmetic and linear algebra modulo a prime: exact ranks."""
