"""What Ray and Tune read from the environment. To be set before ``import ray``; imports nothing of Ray."""

import os
import secrets
import sys
from pathlib import Path

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # with verbose=0 Tune then prints nothing: the screen is ours
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_OVERRIDE_JOB_RUNTIME_ENV": "1",  # a job that was submitted to Ray may bring code of its own
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal is the record
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is handled by the session
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",  # Tune's state, which nobody restores, grows by 10 kB a trial
}

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray listens on 127.0.0.1 alone, as on Windows and macOS. The name is Ray's; no page of its documentation has it."""


def prepare_environment(address: str | None) -> list[str]:
    """Set what a sweep needs of Ray, for this process and the trials'; a value that is there already is kept.

    Without an ``address`` Ray is started here. It then listens on loopback, which every user of the machine can reach,
    so it takes no caller without a token of this run's own. A cluster is joined with the token that lies where Ray
    keeps one, if any does. Returns what could not be set, in words: nothing can once
    ray is imported.
    """
    names = dict(SETTINGS)
    if address is None:
        names |= LOOPBACK
        if "RAY_AUTH_MODE" not in os.environ:
            names |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    elif _has_token():
        names["RAY_AUTH_MODE"] = "token"
    missing = {name: value for name, value in names.items() if name not in os.environ}
    if "ray" not in sys.modules:
        os.environ.update(missing)
    elif missing.keys() & LOOPBACK.keys():
        return [
            "ray was imported before the sweep's command line, so it may listen beyond this machine; import ray after "
            "sweeps.cli.main(), or set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 and RAY_AUTH_MODE=token before"
        ]
    return []


def _has_token() -> bool:
    """Whether a cluster's token is where Ray's documentation says that it is looked for."""
    file = os.environ.get("RAY_AUTH_TOKEN_PATH") or Path("~/.ray/auth_token").expanduser()
    return "RAY_AUTH_TOKEN" in os.environ or Path(file).is_file()
