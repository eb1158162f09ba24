"""A version as one C99 header, which needs the standard library's math.h alone."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from mlpserve_model.format.errors import UnsupportedModel
from mlpserve_model.format.version_files import StoredModel
from mlpserve_model.interchange.metadata import describe
from mlpserve_model.nn.types import Array

__all__ = ["MAX_PARAMETERS", "export_c"]

# Some 60 MB of text, and 16 MiB of read-only memory: beyond what a header is for.
MAX_PARAMETERS = 2**22
_PER_LINE = 8
_EXPRESSIONS = {
    "relu": "z > 0.0f ? z : 0.0f",
    "sigmoid": "{name}_sigmoid(z)",
    "tanh": "tanhf(z)",
    "identity": "z",
    "leaky_relu": "z > 0.0f ? z : 0.01f * z",
    "elu": "z > 0.0f ? z : expm1f(z)",
    "gelu": "0.5f * z * (1.0f + erff(z * 0.70710678f))",
    "silu": "z * {name}_sigmoid(z)",
}

_HEADER = """\
/*
{facts}
 *
 * Written by mlpserve-models export. C99 or C++11; needs math.h (link with -lm).
 *
 *     float probabilities[{macro}_CLASSES];
 *     {name}_predict(input, probabilities);
 *     puts({name}_class_names[{name}_label(probabilities)]);
 *
 * The weights take {kib} KiB of read-only memory, a call {stack} bytes of stack{more}.
 */
#ifndef {macro}_H
#define {macro}_H

#include <math.h>
{includes}
#define {macro}_INPUTS {inputs}
#define {macro}_CLASSES {classes}
#define {macro}_WIDEST {widest}

static const char *const {name}_class_names[{macro}_CLASSES] = {{
{class_names}
}};

{weights}
static inline void {name}_dense(const float *x, int inputs, int units, const float *w,
                                const float *b, float *z)
{{
    for (int j = 0; j < units; j++)
        z[j] = b[j];
    for (int i = 0; i < inputs; i++)
        for (int j = 0; j < units; j++)
            z[j] += x[i] * w[(long)i * units + j];
}}

static inline float {name}_sigmoid(float z)
{{
    const float e = expf(-fabsf(z));
    return (z >= 0.0f ? 1.0f : e) / (1.0f + e);
}}

static inline void {name}_softmax(float *z, int units)
{{
    float top = z[0], sum = 0.0f;
    for (int j = 1; j < units; j++)
        top = z[j] > top ? z[j] : top;
    for (int j = 0; j < units; j++)
        sum += z[j] = expf(z[j] - top);
    for (int j = 0; j < units; j++)
        z[j] /= sum;
}}

/* Compute the {output} of one input: {scale}. */
static inline void {name}_predict(const float input[{macro}_INPUTS],
                                  float output[{macro}_CLASSES])
{{
{buffers}{layers}}}

/* Return the index of the largest value. */
static inline int {name}_label(const float output[{macro}_CLASSES])
{{
    int label = 0;
    for (int j = 1; j < {macro}_CLASSES; j++)
        label = output[j] > output[label] ? j : label;
    return label;
}}
{bytes}
#endif
"""

_BYTES = """
/* The same for raw pixels, from 0 to {maximum:g}. */
static inline void {name}_predict_bytes(const uint8_t pixels[{macro}_INPUTS],
                                        float output[{macro}_CLASSES])
{{
    float input[{macro}_INPUTS];
    for (int i = 0; i < {macro}_INPUTS; i++)
        input[i] = (float)pixels[i] * {factor};
    {name}_predict(input, output);
}}
"""


def export_c(model: StoredModel) -> bytes:
    """Return a header with the weights and a function that predicts.

    Raises:
        UnsupportedModel: It has more than MAX_PARAMETERS weights and biases.

    """
    manifest = model.manifest
    network, signature = manifest.network, manifest.signature
    if network.parameters > MAX_PARAMETERS:
        raise UnsupportedModel(
            f"version {manifest.version} has {network.parameters:,} weights and biases: a C header "
            f"is for at most {MAX_PARAMETERS:,}; export it as onnx or safetensors"
        )
    name = re.sub(r"[^a-z0-9]", "_", manifest.model)
    name = name if name[0].isalpha() else f"model_{name}"
    pixels = signature.input_kind == "pixels"
    widest = max(network.layer_sizes[1:])
    parts: dict[str, Any] = {"name": name, "macro": name.upper()}
    stack = 4 * (2 * widest if len(model.weights) > 1 else 0)
    factor = _literal(np.float32(1 / signature.input_maximum))
    text = _HEADER.format(
        **parts,
        facts="\n".join(_facts(model)),
        includes="#include <stdint.h>\n" if pixels else "",
        inputs=network.inputs,
        classes=network.classes,
        widest=widest,
        kib=-(-4 * network.parameters // 1024),
        stack=stack,
        more=f", of raw pixels {stack + 4 * network.inputs}" if pixels else "",
        class_names=",\n".join(f"    {_string(text)}" for text in signature.class_names),
        weights="\n".join(_weights(name, model)),
        output="values" if network.output_activation == "identity" else "probabilities",
        scale="pixels from 0 to 1" if pixels else "real numbers, as the model takes them",
        buffers=f"    float a[2][{name.upper()}_WIDEST];\n\n" if len(model.weights) > 1 else "",
        layers="".join(_layers(name, model)),
        bytes=_BYTES.format(**parts, maximum=signature.input_maximum, factor=factor)
        if pixels
        else "",
    )
    return text.encode("ascii")


def _facts(model: StoredModel) -> Iterator[str]:
    for key, value in describe(model.manifest).items():
        printable = value.encode("ascii", "backslashreplace").decode()
        for mark in ("/*", "*/", "??"):  # what begins or ends a comment, or is a trigraph
            printable = printable.replace(mark, " ".join(mark))
        yield f" * {key}: {printable[:200]}"


def _weights(name: str, model: StoredModel) -> Iterator[str]:
    for i, layer in enumerate(model.weights, 1):
        inputs, units = layer.w.shape
        yield f"/* ({inputs}, {units}): the weights from input 0 to all units, then from 1, ... */"
        yield _array(f"{name}_w{i}", layer.w)
        yield _array(f"{name}_b{i}", layer.b)


def _array(name: str, values: Array) -> str:
    literals = list(map(_literal, values.ravel()))
    lines = (
        "    " + ", ".join(literals[start : start + _PER_LINE])
        for start in range(0, len(literals), _PER_LINE)
    )
    return f"static const float {name}[{len(literals)}] = {{\n" + ",\n".join(lines) + "\n};\n"


def _literal(value: Any) -> str:
    """Return a float constant of C; 9 digits tell every float32 from its neighbours."""
    text = f"{float(value):.9g}"
    return f"{text}f" if "e" in text or "." in text else f"{text}.0f"


def _string(text: str) -> str:
    """Return a string literal of C in UTF-8; octal escapes end after three digits."""
    plain = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{plain}"'


def _layers(name: str, model: StoredModel) -> Iterator[str]:
    activations = model.manifest.network.activations
    source = "input"
    for i, (layer, activation) in enumerate(zip(model.weights, activations, strict=True), 1):
        inputs, units = layer.w.shape
        target = "output" if i == len(activations) else f"a[{(i - 1) % 2}]"
        arguments = f"{source}, {inputs}, {units}, {name}_w{i}, {name}_b{i}, {target}"
        yield f"    {name}_dense({arguments});\n"
        if activation == "softmax":
            yield f"    {name}_softmax({target}, {units});\n"
        elif activation != "identity":
            expression = _EXPRESSIONS[activation].format(name=name)
            yield f"    for (int j = 0; j < {units}; j++) {{\n"
            yield f"        const float z = {target}[j];\n"
            yield f"        {target}[j] = {expression};\n    }}\n"
        source = target
