"""Brute force for the counts: ranks, modulo a prime, of maps from factors to tensors.

Independent of the kit's networks and rules: the Jacobian is formed entry by entry with numpy's
``einsum`` on Python integers, one factor replaced by each unit vector in turn.
"""

import random

import numpy as np
from flint import nmod_mat

PRIME = 2**61 - 1


def dimension(equation, shapes, seed=0, constants=()):
    """Rank of factors -> einsum(equation, *factors, *constants) at a random point, mod 2^61 - 1."""
    draw = random.Random(seed)
    factors = [
        np.array([draw.randrange(PRIME) for _ in range(int(np.prod(s)))], object).reshape(s)
        for s in shapes
    ]
    rows = []
    for place, factor in enumerate(factors):
        for entry in np.ndindex(factor.shape):
            unit = np.zeros(factor.shape, object)
            unit[entry] = 1
            changed = [*factors[:place], unit, *factors[place + 1 :], *constants]
            rows.append(contracted(equation, changed).reshape(-1))
    entries = [int(v) % PRIME for row in rows for v in row]
    return int(nmod_mat(len(rows), len(rows[0]), entries, PRIME).rank())


def contracted(equation, factors):
    """Einsum over Python integers, two factors at a time so that numbers stay reduced."""
    inputs, output = equation.split("->")
    terms = inputs.split(",")
    value, have = factors[0], terms[0]
    for i, (term, factor) in enumerate(zip(terms[1:], factors[1:], strict=True), start=1):
        later = set(output).union(*terms[i + 1 :])
        keep = "".join(c for c in dict.fromkeys(have + term) if c in later)
        value = np.einsum(f"{have},{term}->{keep}", value, factor) % PRIME
        have = keep
    return np.einsum(f"{have}->{output}", value) % PRIME
