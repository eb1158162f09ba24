"""The description of the REST interface, OpenAPI 3.1, served at /openapi.json."""

from typing import Any

from mlpserve_model.process.versions import version_of
from mlpserve_web.codec import INPUT, MAX_DIMENSIONS, OUTPUTS

__all__ = ["DOCUMENT"]

Schema = dict[str, Any]

_STRING: Schema = {"type": "string"}
_SHAPE: Schema = {
    "type": "array",
    "items": {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
    "minItems": 1,
    "maxItems": MAX_DIMENSIONS,
}
_PARAMETERS: Schema = {"type": "object", "additionalProperties": True}


def _object(required: list[str], **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": required}


def _array(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_SCHEMAS: Schema = {
    "Error": _object(["error"], error=_STRING),
    "ServerMetadata": _object(
        ["name", "version", "extensions"],
        name=_STRING,
        version=_STRING,
        extensions=_array(_STRING),
    ),
    "Live": _object(["live"], live={"type": "boolean"}),
    "Ready": _object(["ready"], name=_STRING, ready={"type": "boolean"}),
    "TensorMetadata": _object(
        ["name", "datatype", "shape"],
        name=_STRING,
        datatype=_STRING,
        shape=_array({"type": "integer"}),
    ),
    "ModelMetadata": _object(
        ["name", "platform", "inputs", "outputs"],
        name=_STRING,
        versions=_array(_STRING),
        platform=_STRING,
        inputs=_array(_reference("TensorMetadata")),
        outputs=_array(_reference("TensorMetadata")),
    ),
    "InferRequest": _object(
        ["inputs"],
        id=_STRING,
        parameters=_PARAMETERS,
        inputs=_array(_reference("Input"), minItems=1, maxItems=1),
        outputs=_array(_reference("RequestedOutput"), maxItems=len(OUTPUTS)),
    ),
    "Input": _object(
        ["name", "datatype", "shape"],
        name={"const": INPUT},
        datatype={"enum": ["FP32", "UINT8"]},
        shape=_SHAPE,
        parameters=_PARAMETERS,
        data={"type": "array", "description": "row-major; flat, or nested as the shape has it"},
    ),
    "RequestedOutput": _object(["name"], name={"enum": list(OUTPUTS)}, parameters=_PARAMETERS),
    "InferResponse": _object(
        ["model_name", "outputs"],
        id=_STRING,
        model_name=_STRING,
        model_version=_STRING,
        outputs=_array(_reference("Output")),
    ),
    "Output": _object(
        ["name", "datatype", "shape"],
        name={"enum": list(OUTPUTS)},
        datatype=_STRING,
        shape=_SHAPE,
        parameters=_PARAMETERS,
        data=_array({"type": "number"}),
    ),
}

_REFUSED = {
    "400": "the request is wrong, or the version was rejected",
    "401": "a bearer token is missing or wrong",
    "403": "the page of another site called, or the token does not allow the model",
    "404": "no such model or version",
    "408": "the body did not come in time",
    "413": "the body is too large",
    "415": "the body is compressed",
    "429": "more work than the server admits",
    "500": "a fault of the server",
    "503": "no model to serve, no server reached, or no memory for the body",
    "504": "no answer within the deadline",
}


def _content(schema: Schema, kind: str = "application/json") -> Schema:
    return {kind: {"schema": schema}}


def _responses(schema: str, *codes: str) -> Schema:
    answers = {"200": {"description": "the answer", "content": _content(_reference(schema))}}
    refused = {
        code: {"description": _REFUSED[code], "content": _content(_reference("Error"))}
        for code in codes
    }
    return answers | refused


def _get(operation: str, schema: str, *codes: str) -> Schema:
    return {"get": {"operationId": operation, "responses": _responses(schema, *codes)}}


def _health(operation: str, schema: str) -> Schema:
    """Describe a check: 503 has the same form as 200, with false."""
    unhealthy = {"description": "it is not", "content": _content(_reference(schema))}
    described = _get(operation, schema, "400", "401", "403", "404", "429", "500", "504")
    described["get"]["responses"]["503"] = unhealthy
    return described


def _model_paths(path: str, suffix: str, parameters: list[Schema]) -> Schema:
    binary = _content({"type": "string", "format": "binary"}, "application/octet-stream")
    responses = _responses("InferResponse", *_REFUSED)
    responses["200"]["content"] |= binary
    body = {"required": True, "content": _content(_reference("InferRequest")) | binary}
    metadata = _get(f"modelMetadata{suffix}", "ModelMetadata", *_REFUSED)
    return {
        path: {"parameters": parameters, **metadata},
        f"{path}/ready": {"parameters": parameters, **_health(f"modelReady{suffix}", "Ready")},
        f"{path}/infer": {
            "parameters": parameters,
            "post": {
                "operationId": f"infer{suffix}",
                "requestBody": body,
                "responses": responses,
            },
        },
    }


def _parameter(name: str, text: str, example: str) -> Schema:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "schema": _STRING,
        "description": text,
        "example": example,
    }


_MODEL = _parameter("model", "the model's name", "mnist")
_VERSION = _parameter("version", "a version's number, or an alias such as champion", "1")

DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "mlpserve",
        "version": version_of("mlpserve"),
        "description": "Open Inference Protocol v2 over REST, with the binary tensor data "
        "extension. A bearer token is passed on to the model server.",
        "license": {"name": "MIT", "identifier": "MIT"},
    },
    "paths": {
        "/v2": _get("serverMetadata", "ServerMetadata", "403"),
        "/v2/health/live": _health("live", "Live"),
        "/v2/health/ready": _health("ready", "Ready"),
        **_model_paths("/v2/models/{model}", "", [_MODEL]),
        **_model_paths("/v2/models/{model}/versions/{version}", "OfVersion", [_MODEL, _VERSION]),
    },
    "components": {
        "schemas": _SCHEMAS,
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
    "security": [{}, {"token": []}],
}
