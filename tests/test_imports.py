"""The folders are the architecture: four floors, each of which knows only those below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("vqcore", "trainables", "analysis", "sweeps")
FORBIDDEN = {
    "vqcore": {"ray", "mlflow", "optuna", "pyarrow", "PIL", "torchvision", "filelock"},
    "trainables": {"ray", "optuna"},
    "analysis": {"ray"},
    "sweeps": set[str](),
}
"""By floor, besides the floors above it."""
FILES = [path for floor in FLOORS for path in sorted((ROOT / floor).rglob("*.py"))]


def imported(path: Path, top_level: bool = False) -> Iterator[str]:
    """The modules that a file imports, also inside functions unless ``top_level``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which floor is meant"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_floor_knows_only_those_below_it(path: Path) -> None:
    floor = path.relative_to(ROOT).parts[0]
    above = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "benchmarks", "examples"}
    roots = {module.split(".")[0] for module in imported(path)}
    allowed = {"ray"} if path.name == "tune_trial.py" else set()
    assert not roots & (above | FORBIDDEN[floor]) - allowed


@pytest.mark.parametrize("path", sorted((ROOT / "sweeps/engine").rglob("*.py")), ids=name_of)
def test_the_engine_knows_no_sweep(path: Path) -> None:
    own = {module for module in imported(path) if module.split(".")[0] == "sweeps"}
    assert all(module.startswith(("sweeps.engine.", "sweeps.flags.")) for module in own)


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Top-level imports: what one module needs of another is there when it is imported, in whatever order."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    needs = {
        name: {found if found in names else found.rpartition(".")[0] for found in imported(path, top_level=True)}
        for name, path in names.items()
    }
    circles = []
    try:
        TopologicalSorter({name: (found & names.keys()) - {name} for name, found in needs.items()}).prepare()
    except CycleError as error:
        circles = error.args[1]
    assert circles == []


def modules(*folders: str) -> list[str]:
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [name.removesuffix(".__init__") for name in names]


DRIVER = ["sweeps.engine.session", "sweeps.engine.ray_runner", "sweeps.engine.ray_cluster", "analysis.report"]
"""What the driver of a sweep on Ray imports; Tune itself then imports mlflow, for its usage statistics."""


@pytest.mark.parametrize(
    ("start", "absent"),
    [
        (["vqcore", "vqcore.config"], {"torch", "numpy"}),
        (modules("vqcore"), {"ray", "mlflow", "optuna", "matplotlib", "trainables", "analysis", "sweeps"}),
        (["trainables.trial"], {"ray", "mlflow", "optuna", "matplotlib", "analysis", "sweeps"}),
        (["trainables.tune_trial"], {"mlflow", "optuna", "matplotlib", "analysis", "sweeps"}),
        (modules("analysis"), {"torch", "ray", "mlflow", "optuna", "sweeps"}),
        (["sweeps.cli", "sweeps.pareto"], {"torch", "ray", "optuna", "scipy"}),
        (DRIVER, {"torch"}),
    ],
    ids=["a configuration", "vqcore", "a trial", "a trial's actor", "analysis", "a command line", "a driver"],
)
def test_importing_brings_nothing_that_is_not_needed(start: list[str], absent: set[str]) -> None:
    """In a process of its own: what a trial actor loads, it loads hundreds of times."""
    code = f"import sys, {', '.join(start)}; print(*{absent!r} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=False)
    assert (run.returncode, run.stdout.split()) == (0, []), run.stderr


LIBRARIES = {"ray", "mlflow", "optuna", "torch", "numpy", "pyarrow", "tyro", "rich", "matplotlib", "sqlalchemy"}


def foreign_names(path: Path) -> Iterator[str]:
    """The dotted names of other libraries that a file uses, as it writes them and as it imports them."""
    for module in imported(path):
        if module.split(".")[0] in LIBRARIES:
            yield module
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.split(".")[0] in LIBRARIES and name.replace(".", "").isidentifier():
                yield name


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_documented_names_of_other_libraries_are_used(path: Path) -> None:
    parts = {name: [part for part in name.split(".") if not part.endswith("__")] for name in foreign_names(path)}
    assert not {name for name, of in parts.items() if any(part.startswith("_") for part in of)}


PERMITTED = {"_exit", "_replace", "_asdict", "_apply", "_load_from_state_dict"}
"""Documented in spite of its underscore (os, namedtuple), or the one way that torch has to keep a submodule fp32."""


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_module_reaches_into_an_object_of_another(path: Path) -> None:
    """``x._name`` where this file neither assigns nor defines such a name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)}
    reached = {node.attr for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    assert not {name for name in reached - own - PERMITTED if not name.endswith("__")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_an_import_sets_nothing_for_others(path: Path) -> None:
    """No environment variable, signal handler or patch of a library at the top level of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Expr | ast.Assign | ast.AugAssign)]
    found = [
        call for call in calls if call.startswith(("os.environ", "signal.signal", "setattr(", "logging.getLogger("))
    ]
    patched = [
        ast.unparse(target)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Attribute)
    ]
    assert not found + patched
