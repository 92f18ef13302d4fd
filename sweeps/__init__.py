"""What is swept: one short module a sweep, run with ``python -m``."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def __getattr__(name: str) -> Any:
    """``from sweeps import ParetoASHA``: ray is imported by those who use it, and by nobody else."""
    if name == "ParetoASHA":
        return import_module("sweeps.engine.pareto_asha").ParetoASHA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _check_packages() -> None:
    """``ImportError`` if a file of the user's own, beside a script say, hides a package that the sweeps import."""
    for name in ("vqcore", "trainables", "analysis"):
        spec, ours = find_spec(name), Path(__file__).parents[1] / name / "__init__.py"
        found = spec.origin if spec else None
        if found is not None and Path(found).resolve() != ours.resolve():
            raise ImportError(
                f"{found} hides the package {name!r} of vqsweep ({ours.parent}); rename or move that file"
            )


_check_packages()
