"""The inverse of the standard normal distribution function, in NumPy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# of the rational functions, the highest power first: near the middle in 0.425^2 - (p - 1/2)^2, else in the root of
# -log p, less 1.6
MIDDLE = (
    (
        *(2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4),
        *(1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0),
    ),
    (
        *(5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4),
        *(5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0),
    ),
)
TAIL = (
    (
        *(7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0),
        *(3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0),
    ),
    (
        *(1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1),
        *(6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0),
    ),
)


def normal_quantile(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return z below which a standard normal variable stays with probability p, to about 16 digits.

    p        from 1.4e-11 to 1 - 1.4e-11
    Source   M. J. Wichura, Algorithm AS 241: the percentage points of the normal distribution, 1988
    """
    q = p - 0.5
    tail = np.abs(q) > 0.425
    z = q * _ratio(MIDDLE, 0.425**2 - np.where(tail, 0.0, q) ** 2)
    r = np.sqrt(-np.log(np.minimum(p[tail], 1 - p[tail])))
    z[tail] = np.sign(q[tail]) * _ratio(TAIL, r - 1.6)
    return z


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: NDArray[np.float64]) -> NDArray[np.float64]:
    above, below = (np.polyval(several, x) for several in coefficients)
    return above / below
