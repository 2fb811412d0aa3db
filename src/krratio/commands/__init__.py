"""The commands of the command line, one file each: its options, and what it does with them.

Each has ``add(commands)``, which declares its options and sets ``run(options, layout) -> int``.
A command imports what is heavy inside of ``run``, so that the command line starts at once.
"""
