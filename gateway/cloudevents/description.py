"""What the OpenAPI document says of `POST /v1/events`: the one route that no annotation makes."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.cloudevents.endpoint import BATCH_TYPE, EVENT_TYPE, MOST_EVENTS

Schema = dict[str, Any]

_DESCRIPTION: Final = f"""\
Takes CloudEvents 1.0 in, as the HTTP binding's three modes: structured (`{EVENT_TYPE}`), batched \
(`{BATCH_TYPE}`, at most {MOST_EVENTS:,} events) and binary (the attributes as `ce-` headers, the data as body).

`id`, `source` and `type` are those of the usage event. `time` is when it happened; an event without it happened when it \
was received, and is then a conflict when it is sent again: send it. `subject` is the customer: an id (`cus_…`), or else \
an external key. Numbers in `data` are quantities, with all their digits; its strings, and `true` and `false`, are \
attributes; `null` is left out. Objects within are flattened with dots (`request.bytes`); arrays are refused. Data that \
is a bare number or string is called `data`. `traceparent` gives the trace id and `tracestate` is dropped; all other \
extensions, and `dataschema`, are kept as attributes under their own names, with `ce-` before a name that `data` has too.

One event that is refused is a problem that names the field. A batch is answered with a result per event: a bad event \
refuses itself and never its batch. Events of unknown customers or types are held in quarantine: they are taken. \
`data_base64`, data that is not JSON in UTF-8, and any `specversion` but `1.0` are refused.
"""
_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": 256}
_EVENT: Final[Schema] = {
    "type": "object",
    "description": "A CloudEvent 1.0 in JSON. Any further name is an extension: a string, an integer or a boolean.",
    "properties": {
        "specversion": {
            "type": "string",
            "const": "1.0",
            "description": "The version of CloudEvents.",
            "examples": ["1.0"],
        },
        "id": {**_TEXT, "description": "Unique per source.", "examples": ["e-1"]},
        "source": {**_TEXT, "description": "Where it happened, a URI-reference.", "examples": ["accesslog/web-1"]},
        "type": {
            **_TEXT,
            "description": "What happened; meters select events by it.",
            "examples": ["http.request"],
        },
        "subject": {**_TEXT, "description": "The customer: `cus_…`, or an external key.", "examples": ["acme"]},
        "time": {
            "type": "string",
            "format": "date-time",
            "description": "When it happened; when it was received if absent.",
            "examples": ["2026-01-31T18:30:00Z"],
        },
        "datacontenttype": {"type": "string", "description": "JSON, if given: `application/json`."},
        "dataschema": {"type": "string", "description": "Kept as an attribute."},
        "traceparent": {"type": "string", "description": "W3C Trace Context of what made the event."},
        "data": {
            "description": "Numbers are quantities, other scalars attributes.",
            "type": ["object", "number", "string", "boolean", "null"],
            "examples": [{"bytes": 4321, "path": "/index.html"}],
        },
    },
    "required": ["specversion", "id", "source", "type", "subject"],
    "additionalProperties": True,
}


def schemas() -> dict[str, Schema]:
    """Return the schemas that `operation` refers to, beside those of the contract."""
    return {"CloudEvent": _EVENT}


def operation(answer: Mapping[str, Any]) -> Schema:
    """Return the operation.

    Args:
        answer: the schema of what IngestEvents answers.
    """
    event = {"$ref": "#/components/schemas/CloudEvent"}
    problem = {"$ref": "#/components/responses/Problem"}
    data = {"description": "The data, in binary mode; the attributes are headers then."}
    return {
        "operationId": "CloudEvents_Ingest",
        "tags": ["EventService"],
        "summary": "Takes CloudEvents 1.0 in",
        "description": _DESCRIPTION,
        "parameters": [
            {
                "name": f"ce-{name}",
                "in": "header",
                "required": False,
                "description": f"`{name}` of the event, in binary mode: percent-encoded UTF-8.",
                "schema": {"type": "string"},
            }
            for name in ("specversion", "id", "source", "type", "subject", "time", "traceparent")
        ],
        "requestBody": {
            "required": False,
            "content": {
                EVENT_TYPE: {"schema": event},
                BATCH_TYPE: {"schema": {"type": "array", "items": event, "maxItems": MOST_EVENTS}},
                "application/json": {"schema": data},
            },
        },
        "responses": {
            "200": {
                "description": "What became of each event, in the order of the request.",
                "content": {"application/json": {"schema": answer}},
            },
            "400": problem,
            "409": problem,
            "413": problem,
            "415": problem,
            "503": problem,
            "default": problem,
        },
    }
