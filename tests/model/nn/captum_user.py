"""Captum's DeepLift on a network of ours, in an environment of its own: see test_captum.py.

Reads an .npz file: x, baseline, label, the name of the activation, and of every layer w and b.
Writes another one, with the attributions.
"""

import sys

import numpy as np
import torch
from captum.attr import DeepLift

ACTIVATIONS = {
    "relu": torch.nn.ReLU,
    "sigmoid": torch.nn.Sigmoid,
    "tanh": torch.nn.Tanh,
    "identity": torch.nn.Identity,
    "leaky_relu": torch.nn.LeakyReLU,
    "elu": torch.nn.ELU,
    "gelu": torch.nn.GELU,
    "silu": torch.nn.SiLU,
}


def main() -> None:
    """Explain what the first file holds, into the second."""
    with np.load(sys.argv[1]) as given:
        network = _network(given)
        x, baseline = torch.from_numpy(given["x"]), torch.from_numpy(given["baseline"])
        labels = torch.from_numpy(given["labels"])
    found = DeepLift(network).attribute(x, baseline.expand_as(x), target=labels)
    np.savez(sys.argv[2], attributions=found.detach().numpy())


def _network(given: "np.lib.npyio.NpzFile") -> torch.nn.Sequential:
    """Return the layers up to the logits; Captum wants a module of its own for each activation."""
    layers: list[torch.nn.Module] = []
    while f"w{len(layers) // 2}" in given:
        number = len(layers) // 2
        w, b = given[f"w{number}"], given[f"b{number}"]
        linear = torch.nn.Linear(*w.shape, dtype=torch.float64)
        linear.load_state_dict({"weight": torch.from_numpy(w.T), "bias": torch.from_numpy(b)})
        layers += [linear, ACTIVATIONS[str(given["activation"])]()]
    return torch.nn.Sequential(*layers[:-1])


if __name__ == "__main__":
    main()
