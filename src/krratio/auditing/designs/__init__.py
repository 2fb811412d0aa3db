"""The block designs side by side: drawn, counted and measured."""
