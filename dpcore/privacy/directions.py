"""The last step of the mechanism: what a method makes of the public term and of the released private term.

Guarantees: post-processing. A method's function receives values that are public or released already, and nothing else.
"""

from __future__ import annotations

from torch import Tensor

from dpcore.config.methods import Method
from dpcore.config.registry import loaded
from dpcore.errors import BadInput


def direction_of(method: Method, public_term: Tensor | None, private_term: Tensor | None) -> Tensor:
    """The direction (P,) float32 of a step.

    Args:
        method: says how the two are combined.
        public_term: λ ḡ_pub (P,) float32; None for a method without views, and where λ is 0.
        private_term: α times the noised mean (P,) float64; None for a control.

    Raises:
        BadInput: both are None, or the method's own function gives no vector of that size.
    """
    given = public_term if private_term is None else private_term
    if given is None:
        raise BadInput("a control without public term has nothing to release")
    if method.direction is None:
        if public_term is None or private_term is None:
            return given.float()
        return (public_term.double() + private_term).float()
    value = loaded(method.direction, what=f"the direction of method {method.name}")(public_term, private_term)
    if not isinstance(value, Tensor) or value.shape != given.shape:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise BadInput(f"method {method.name}: its direction must be a tensor of shape {tuple(given.shape)}, it is {found}")
    return value.float()
