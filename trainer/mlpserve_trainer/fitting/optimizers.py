"""Optimizers: how a gradient changes the weights, in place and without temporaries.

An update works on flat vectors, or on the same slice of each: the weights `w`, the gradient `g`,
which is overwritten as scratch space, and the `state` vectors that the optimizer keeps between
steps, zero before the first one. `step` counts from 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from mlpserve_model.nn.types import Array
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["OPTIMIZERS", "Optimizer"]

State = Sequence[Array] | Array
Update = Callable[[Array, Array, State, int, float, Recipe], None]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Optimizer(NamedTuple):
    """An update rule.

    Attributes:
        state_vectors: Number of vectors that it keeps between steps.
        update: Changes the weights in place.
    """

    state_vectors: int
    update: Update


def sgd(w: Array, g: Array, state: State, step: int, rate: float, recipe: Recipe) -> None:
    """Step with momentum: v <- momentum · v + g, w <- w - rate · v.

    Sutskever et al., On the importance of initialization and momentum (2013), with the learning
    rate outside the velocity v.
    """
    (v,) = state
    _add_decay(w, g, recipe.weight_decay)
    np.multiply(v, recipe.momentum, out=v)
    np.add(v, g, out=v)
    np.multiply(v, rate, out=g)
    np.subtract(w, g, out=w)


def nesterov(w: Array, g: Array, state: State, step: int, rate: float, recipe: Recipe) -> None:
    """Step with the gradient ahead: v <- momentum · v + g, w <- w - rate · (g + momentum · v).

    Sutskever et al. (2013), section 2, as rewritten by Bengio et al., Advances in optimizing
    recurrent networks (2012). The state holds momentum · v, which saves a temporary.
    """
    (v,) = state
    _add_decay(w, g, recipe.weight_decay)
    np.add(v, g, out=v)
    np.multiply(v, recipe.momentum, out=v)
    np.add(g, v, out=g)
    np.multiply(g, rate, out=g)
    np.subtract(w, g, out=w)


def adam(w: Array, g: Array, state: State, step: int, rate: float, recipe: Recipe) -> None:
    """Step as Adam does: Kingma and Ba, Adam: a method for stochastic optimization (2015).

    The moments are stored without the factors 1 - beta and without bias correction. Both go into
    the learning rate and epsilon instead, as the remark at the end of section 2 suggests, which
    leaves ten passes over the weights.
    """
    _add_decay(w, g, recipe.weight_decay)
    _adam_step(w, g, state, step, rate)


def adamw(w: Array, g: Array, state: State, step: int, rate: float, recipe: Recipe) -> None:
    """Step as Adam does, with decay outside the gradient: w <- w - rate · decay · w.

    Loshchilov and Hutter, Decoupled weight decay regularization (2019), algorithm 2.
    """
    np.multiply(w, 1 - rate * recipe.weight_decay, out=w)
    _adam_step(w, g, state, step, rate)


def _add_decay(w: Array, g: Array, decay: float) -> None:
    """Add the gradient of ½ · decay · |w|² to `g`."""
    if decay:
        np.add(g, w * decay, out=g)


def _adam_step(w: Array, g: Array, state: State, step: int, rate: float) -> None:
    mean, square = state
    mean_factor = (1 - BETA1) / (1 - BETA1**step)
    square_factor = math.sqrt((1 - BETA2) / (1 - BETA2**step))
    np.multiply(mean, BETA1, out=mean)
    np.add(mean, g, out=mean)
    np.multiply(square, BETA2, out=square)
    np.square(g, out=g)
    np.add(square, g, out=square)
    # From here on g holds the step.
    np.sqrt(square, out=g)
    np.add(g, EPSILON / square_factor, out=g)
    np.divide(mean, g, out=g)
    np.multiply(g, rate * mean_factor / square_factor, out=g)
    np.subtract(w, g, out=w)


OPTIMIZERS = {
    "adam": Optimizer(2, adam),
    "adamw": Optimizer(2, adamw),
    "nesterov": Optimizer(1, nesterov),
    "sgd": Optimizer(1, sgd),
}
