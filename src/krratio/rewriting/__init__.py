"""Networks rewritten: the same function in fewer channels, or nearly the same in small blocks."""
