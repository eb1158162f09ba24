"""A scikit-learn estimator: the trainer's recipes behind `fit`, `predict` and the like."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from mlpserve_model import Network, Weights, forward
from mlpserve_trainer.datasets.rows import distinct_rows
from mlpserve_trainer.datasets.scaling import Scaling, weighted_standardising
from mlpserve_trainer.datasets.split import Examples
from mlpserve_trainer.estimator.inputs import (
    Doubles,
    Integers,
    checked_weights,
    class_weights,
    multiplied,
    plain_value,
    split_off,
    unweighted,
    validated,
)
from mlpserve_trainer.evaluation.calibration import apply_temperature
from mlpserve_trainer.fitting.fit import fit, run_epoch
from mlpserve_trainer.fitting.parallel.engine import interleaved_engine
from mlpserve_trainer.fitting.run import calibrated
from mlpserve_trainer.fitting.state import TrainingState, layers_of
from mlpserve_trainer.recipes.loading import load_recipe
from mlpserve_trainer.recipes.recipe import Recipe

__all__ = ["MlpClassifier"]

# Rows by which an epoch is watched where no validation rows are needed.
WATCHED_ROWS = 1000


class MlpClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # both are untyped
    """A multi-layer perceptron, trained as `mlpserve train` trains it.

    It takes dense rows of real numbers, which it standardises itself. The order of the training
    rows does not matter, and a sample weight of 2 is the same as a row that is there twice.
    `mlpserve_trainer.publish` puts a fitted one into a store.

    Args:
        recipe: Name of a recipe, path of a .toml file, or a `Recipe`. The keys below override it;
            None leaves the recipe's own. Those that distort images are not used.
        hidden: Units of each hidden layer.
        hidden_activation: Activation function of the hidden layers.
        output_activation: Activation function of the last layer: softmax or sigmoid.
        activations: Activation function of each layer, in place of the two above.
        loss: cross_entropy or mean_squared_error.
        initialisation: Distribution of the initial weights: he or xavier.
        optimizer: adam, adamw, nesterov or sgd.
        learning_rate: Largest learning rate.
        momentum: Momentum of sgd and nesterov.
        schedule: How the learning rate changes: constant, linear, cosine, one_cycle or step.
        warmup: Fraction of the training in which the learning rate rises from 0.
        batch_size: Rows in one training step.
        epochs: Passes over the training rows; exact if it is given without `min_steps`.
        min_steps: Minimum number of training steps, by more passes in each epoch.
        weight_decay: Strength of the decay of the weights towards 0.
        dropout: Fraction of the hidden units dropped in each step.
        clip_norm: Maximum norm of the gradient; 0 for no limit.
        averaging: Decay of the running average of the weights; 0 for none.
        label_smoothing: Fraction of each target spread over all classes.
        calibration: temperature or none.
        patience: Epochs without a better validation accuracy that end the training; 0: no limit.
        validation_fraction: Fraction of each class that is kept for calibration and patience.
        standardise: Whether each column is brought to mean 0 and deviation 1 for the training.
        class_weight: Weight of each class by its label, "balanced", or None for 1.
        random_state: Seed of all randomness.

    Attributes:
        classes_: The labels, in the order of the probabilities.
        loss_curve_: Mean training loss of each epoch.
        n_iter_: Number of epochs.
        temperature_: What the logits were divided by for calibration; 1.0 if they were not.
        network_: The shape of the network: with softmax outputs if the answers are calibrated.
        weights_: Its weights, float64, which take rows as they are: what standardised them and
            calibrated the answers is folded in.

    """

    def __init__(
        self,
        recipe: str | Recipe = "table",
        *,
        hidden: tuple[int, ...] | None = None,
        hidden_activation: str | None = None,
        output_activation: str | None = None,
        activations: tuple[str, ...] | None = None,
        loss: str | None = None,
        initialisation: str | None = None,
        optimizer: str | None = None,
        learning_rate: float | None = None,
        momentum: float | None = None,
        schedule: str | None = None,
        warmup: float | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        min_steps: int | None = None,
        weight_decay: float | None = None,
        dropout: float | None = None,
        clip_norm: float | None = None,
        averaging: float | None = None,
        label_smoothing: float | None = None,
        calibration: str | None = None,
        patience: int | None = None,
        validation_fraction: float | None = None,
        standardise: bool = True,
        class_weight: Mapping[Any, float] | str | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.recipe = recipe
        self.hidden = hidden
        self.hidden_activation = hidden_activation
        self.output_activation = output_activation
        self.activations = activations
        self.loss = loss
        self.initialisation = initialisation
        self.optimizer = optimizer
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.schedule = schedule
        self.warmup = warmup
        self.batch_size = batch_size
        self.epochs = epochs
        self.min_steps = min_steps
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.clip_norm = clip_norm
        self.averaging = averaging
        self.label_smoothing = label_smoothing
        self.calibration = calibration
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.standardise = standardise
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MlpClassifier":  # noqa: N803
        """Train from the beginning.

        Args:
            X: Rows (n, columns).
            y: Their labels (n,), integers or strings.
            sample_weight: Their weights (n,), at least 0; None for 1.

        Raises:
            ValueError: The arguments cannot be trained on.
            TrainerError: A parameter is not allowed, or the training diverges.

        """
        recipe = self.effective_recipe()
        x, labels, weights = self._rows(X, y, sample_weight)
        network = self._begin(recipe, x, weights)
        training, validation = split_off(recipe, self._examples(x, labels, weights))
        watched = validation or training.select(slice(WATCHED_ROWS))
        with threadpool_limits(1, user_api="blas"):
            epochs = fit(network, recipe, training, watched, self._seed, engine=interleaved_engine)
            *_, last = epochs
        if validation:
            last = calibrated(recipe, last, unweighted(validation))
        self._finish(last.network, last.weights, last.state, last.temperature)
        return self

    def partial_fit(
        self,
        X: Any,  # noqa: N803
        y: Any,
        classes: Any = None,
        sample_weight: Any = None,
    ) -> "MlpClassifier":
        """Train one pass over these rows, from where the last call ended.

        The learning rate is constant. What standardises rows is that of the first call, and so is
        the temperature, if that was `fit`.

        Args:
            X: Rows (n, columns).
            y: Their labels (n,).
            classes: All labels that will ever come, needed by the first call.
            sample_weight: Their weights (n,), at least 0; None for 1.

        Raises:
            ValueError: The arguments cannot be trained on.
            TrainerError: A parameter is not allowed, or the training diverges.

        """
        recipe = self.effective_recipe().override(
            {"schedule": "constant", "warmup": 0.0, "min_steps": 0, "patience": 0}
        )
        first = not hasattr(self, "classes_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        known = np.unique(classes) if first else self.classes_
        if not first and classes is not None and not np.array_equal(np.unique(classes), known):
            raise ValueError(f"classes {classes}, expected those of the first call: {known}")
        x, labels, weights = self._rows(X, y, sample_weight, known, reset=first)
        network = self._begin(recipe, x, weights) if first else self._trained
        if first:
            self._state = TrainingState.initial(network, recipe, self._seed)
        examples, state = self._examples(x, labels, weights), self._state
        with threadpool_limits(1, user_api="blas"):
            steps = interleaved_engine(network, recipe, examples, state)
            loss, rate = run_epoch(steps, recipe, examples, self._seed, state.epochs)
        state.add_epoch(loss, 0.0, rate, keep_best=False)
        layers = layers_of(network, state.current)
        temperature = 1.0 if first else self.temperature_
        answering = network if first else self.network_
        self._finish(answering, apply_temperature(layers, temperature), state, temperature)
        return self

    def predict_proba(self, X: Any) -> Doubles:  # noqa: N803
        """Return the probabilities (n, classes) of rows (n, columns), each summing to 1."""
        check_is_fitted(self)
        rows = validated(self, X, dtype=np.float64, reset=False)
        found: Any = forward(self.network_, self.weights_, rows)
        sums = found.sum(axis=1, keepdims=True)
        # Sigmoid outputs may all be 0, which says nothing of any class.
        known = np.where(sums > 0, sums, 1)
        answers: Doubles = np.where(sums > 0, found / known, 1 / found.shape[1])
        return answers

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """Return the labels (n,) of rows (n, columns)."""
        probabilities = self.predict_proba(X)
        labels: npt.NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels

    def effective_recipe(self) -> Recipe:
        """Return the recipe with the parameters that override it.

        Raises:
            UsageError: A parameter is not allowed.

        """
        names = {key.name for key in fields(Recipe)} - {"name", "description", "dataset"}
        given = {k: v for k, v in self.get_params(deep=False).items() if k in names}
        changes = {name: plain_value(name, v) for name, v in given.items() if v is not None}
        recipe = self.recipe if isinstance(self.recipe, Recipe) else load_recipe(self.recipe)
        return recipe.override(changes)

    def _rows(
        self,
        x: Any,
        y: Any,
        sample_weight: Any,
        classes: npt.NDArray[Any] | None = None,
        reset: bool = True,
    ) -> tuple[Doubles, Integers, Doubles]:
        """Return distinct rows, their labels and weights, and set `classes_`."""
        x, y = validated(self, x, y, dtype=np.float64, reset=reset)
        check_classification_targets(y)
        weights = checked_weights(sample_weight, len(x))
        self.classes_ = np.unique(y) if classes is None else classes
        labels = np.searchsorted(self.classes_, y).clip(max=len(self.classes_) - 1)
        if not np.array_equal(self.classes_[labels], y):
            raise ValueError(f"y has labels outside the classes {self.classes_}")
        factors = np.ones(len(self.classes_))
        if self.class_weight is not None:
            known = None if classes is not None else y
            factors = class_weights(self.class_weight, self.classes_, known)
        found = distinct_rows(x, labels, multiplied(weights, factors[labels]))
        if classes is None and len(np.unique(found[1])) < 2:
            raise ValueError(
                "the rows of positive weight have 1 class, expected at least two classes"
            )
        return found

    def _begin(self, recipe: Recipe, x: Doubles, weights: Doubles) -> Network:
        """Set what a training starts from, and return the network."""
        self._seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        one = Scaling(np.ones(x.shape[1]), np.zeros(x.shape[1]))
        self._scaling = weighted_standardising(x, weights) if self.standardise else one
        sizes = (x.shape[1], *recipe.hidden, len(self.classes_))
        self._trained = Network(sizes, recipe.layer_activations)
        return self._trained

    def _examples(self, x: Doubles, labels: Integers, weights: Doubles) -> Examples:
        uniform = weights.max() == weights.min() == 1
        return Examples(self._scaling.apply(x), labels, 1, None if uniform else weights)

    def _finish(
        self, network: Network, weights: Weights, state: TrainingState, temperature: float | None
    ) -> None:
        self.network_, self._state, self.temperature_ = network, state, temperature or 1.0
        self.weights_ = self._scaling.fold(weights, np.float64)
        self.loss_curve_, self.n_iter_ = list(state.losses), state.epochs
