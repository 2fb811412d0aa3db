"""How much data, how much error: bounds from above with explicit constants, and from below.

The model is y_i = <Z_i, W*> + noise, W* in a class closed under multiples; errors are root mean
squares of <Z_i, W - W*>. What ``dimension`` means depends on the bound and is said there.
"""

from krratio.theory.bounds.dependence import (
    ar1_spectral_bounds,
    law_factor,
    var1_spectral_bounds,
)
from krratio.theory.bounds.lower import frozen_cp, frozen_matrix, frozen_tt, frozen_tucker
from krratio.theory.bounds.neighbours import convolutional_filter, tensor_network_capacity
from krratio.theory.bounds.planning import error_bound, sample_size
from krratio.theory.bounds.upper import design_size, fixed_design, isometry, operator_norm

__all__ = [
    "ar1_spectral_bounds",
    "convolutional_filter",
    "design_size",
    "error_bound",
    "fixed_design",
    "frozen_cp",
    "frozen_matrix",
    "frozen_tt",
    "frozen_tucker",
    "isometry",
    "law_factor",
    "operator_norm",
    "sample_size",
    "tensor_network_capacity",
    "var1_spectral_bounds",
]
