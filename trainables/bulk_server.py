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
from trainables.bulk_store import NewRun, NotMadeError

if TYPE_CHECKING:
    from flask import Response

PATH = "/api/2.0/vqsweep/runs"
"""POST makes runs; GET says that the server knows how."""

_KNOWN = {"vqsweep": 1}


@dataclass(frozen=True)
class _Body:
    experiment_id: str
    runs: list[NewRun]


_ON_THE_WAY = (502, 503, 504)
"""Statuses of who stands between, after which it may still be made."""

Writer = Callable[[str, Sequence[NewRun]], None]
"""Makes runs in an experiment, all or none. ``NotMadeError``: not these together; else they may be made yet."""


def app() -> Any:
    """What ``mlflow server --app-name vqsweep`` serves."""
    from mlflow.environment_variables import _MLFLOW_SGI_NAME
    from mlflow.server import app as flask_app

    _route(flask_app)
    if _MLFLOW_SGI_NAME.get() != "uvicorn":  # type: ignore[no-untyped-call]  # gunicorn, waitress
        return flask_app
    from mlflow.server.fastapi_app import app

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
    response = _asked(uri, "GET")
    try:
        return partial(_post, uri) if response.status_code == 200 and response.json() == _KNOWN else None
    except ValueError:  # what answers is no JSON
        return None


def _post(uri: str, experiment_id: str, runs: Sequence[NewRun]) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.rest_utils import verify_rest_response

    body = json.dumps({"experiment_id": experiment_id, "runs": [vars(run) for run in runs]}, separators=(",", ":"))
    response = _asked(uri, "POST", data=body, extra_headers={"Content-Type": "application/json"})
    try:
        verify_rest_response(response, PATH)
    except Exception as error:
        there = getattr(error, "error_code", "") == "RESOURCE_ALREADY_EXISTS"
        if there or response.status_code in _ON_THE_WAY:
            raise
        raise NotMadeError(f"HTTP {response.status_code}") from error
    if response.json() != _confirmation(runs):
        raise MlflowException("what answers there is no MLflow server")


def _confirmation(runs: Sequence[NewRun]) -> dict[str, list[str]]:
    return {"made": [run.id for run in runs]}


def _asked(uri: str, method: str, **words: Any) -> Any:
    """What is answered, whatever it is; ``MlflowException`` if nothing is."""
    from mlflow.utils.rest_utils import http_request

    return http_request(_credentials(uri), PATH, method, raise_on_status=False, **words)  # type: ignore[no-untyped-call]


def _credentials(uri: str) -> Any:
    from mlflow.utils.credentials import get_default_host_creds

    return get_default_host_creds(uri)  # type: ignore[no-untyped-call]


def _route(flask_app: Any) -> str:
    """Add our request; its path on this server."""
    from mlflow.server.handlers import _add_static_prefix, _disable_if_artifacts_only, catch_mlflow_exception

    path = _add_static_prefix(PATH)
    answer = catch_mlflow_exception(_disable_if_artifacts_only(_answer))  # type: ignore[no-untyped-call]
    flask_app.add_url_rule(path, "vqsweep_runs", answer, methods=["GET", "POST"])
    return path


def _answer() -> "Response":
    from flask import abort, jsonify, request
    from mlflow.server.handlers import _get_tracking_store
    from mlflow.server.validation import _validate_content_type
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from pydantic import ValidationError

    store: Any = _get_tracking_store()
    if not isinstance(store, SqlAlchemyStore):
        abort(404)
    if request.method != "POST":  # GET, and HEAD, which nobody guards
        return jsonify(_KNOWN)
    _validate_content_type(request, ["application/json"])  # another page's form cannot say so
    try:
        asked = _shape().validate_json(request.get_data())
    except ValidationError as error:
        raise bulk_store.refusal(str(error.errors(include_input=False)[0])) from None
    bulk_store.write(store, asked.experiment_id, asked.runs)
    return jsonify(_confirmation(asked.runs))


@cache
def _shape() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(_Body)
