"""Whole runs over HTTP: MLflow's server with one request more, and who asks it.

``mlflow server --app-name vqsweep``, or ``vqsweep-auth`` in the place of ``basic-auth``, is MLflow's own application
that also takes a POST of many whole runs (``bulk_store``). To make runs that way needs the same permission as to make
them in MLflow's way.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from trainables import bulk_store
from trainables.bulk_store import NewRun

if TYPE_CHECKING:
    from flask import Response

PATH = "/api/2.0/vqsweep/runs"
"""POST makes runs; GET says that the server knows how."""

_KNOWN = {"vqsweep": 1}


@dataclass(frozen=True)
class _Asked:
    experiment_id: str
    runs: list[NewRun]


Writer = Callable[[str, Sequence[NewRun]], list[str]]
"""Makes runs in an experiment, all or none, and returns their ids."""


def app() -> Any:
    """What ``mlflow server --app-name vqsweep`` serves."""
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app

    _route(flask_app)
    return app


def auth_app() -> Any:
    """What ``mlflow server --app-name vqsweep-auth`` serves: ``basic-auth``, with permissions for our request."""
    from mlflow.server import app as flask_app
    from mlflow.server import auth

    app = auth.create_app()
    path = _route(flask_app)
    auth.BEFORE_REQUEST_VALIDATORS[path, "GET"] = lambda: True
    auth.BEFORE_REQUEST_VALIDATORS[path, "POST"] = auth.validate_can_create_run
    return app


def writer(uri: str) -> Writer | None:
    """How to make whole runs on the server at ``uri``; None where it is one that does not know how."""
    from mlflow.utils.rest_utils import http_request

    response = http_request(_credentials(uri), PATH, "GET")  # type: ignore[no-untyped-call]
    try:
        return partial(_post, uri) if response.status_code == 200 and response.json() == _KNOWN else None
    except ValueError:  # what answers is no JSON
        return None


def _post(uri: str, experiment_id: str, runs: Sequence[NewRun]) -> list[str]:
    from mlflow.utils.rest_utils import http_request_safe

    body = json.dumps({"experiment_id": experiment_id, "runs": [vars(run) for run in runs]}, separators=(",", ":"))
    headers = {"Content-Type": "application/json"}
    answer = http_request_safe(_credentials(uri), PATH, "POST", data=body, extra_headers=headers)  # type: ignore[no-untyped-call]
    ids: list[str] = answer.json()["run_ids"]
    return ids


def _credentials(uri: str) -> Any:
    from mlflow.utils.credentials import get_default_host_creds

    return get_default_host_creds(uri)  # type: ignore[no-untyped-call]


def _route(flask_app: Any) -> str:
    """Add our request; its path on this server."""
    from mlflow.server.handlers import _add_static_prefix, catch_mlflow_exception

    path = _add_static_prefix(PATH)
    answer = catch_mlflow_exception(_answer)  # type: ignore[no-untyped-call]
    flask_app.add_url_rule(path, "vqsweep_runs", answer, methods=["GET", "POST"])
    return path


def _answer() -> "Response":
    from flask import jsonify, request
    from mlflow.server.handlers import _get_tracking_store
    from mlflow.server.validation import _validate_content_type
    from pydantic import ValidationError

    if request.method == "GET":
        return jsonify(_KNOWN)
    _validate_content_type(request, ["application/json"])  # another page's form cannot say so
    try:
        asked = _asked().validate_json(request.get_data())
    except ValidationError as error:
        raise bulk_store.refusal(str(error.errors(include_input=False)[0])) from None
    store: Any = _get_tracking_store()
    return jsonify(run_ids=bulk_store.write(store, asked.experiment_id, asked.runs))


@cache
def _asked() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_Asked)
