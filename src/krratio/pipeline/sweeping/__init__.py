"""Many tasks: a grid of them, the process that runs one, and Dask, which runs many."""
