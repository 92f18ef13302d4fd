"""Whole runs written by statements: the same rows in the same tables as MLflow's own client and store write."""

from itertools import count
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables import bulk_store
from trainables.bulk_store import NewRun

pytestmark = pytest.mark.service
NUMBER = count()
NAMES = ("mse", "perplexity", "train/mse")

values = st.one_of(st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf")]), st.floats())
metrics = st.dictionaries(st.sampled_from(NAMES), values)
texts = st.dictionaries(st.sampled_from(["decay", "a b", "x/y", "mlflow.user"]), st.text("aé'\"%:\n", max_size=5))
runs = st.builds(
    NewRun,
    id=st.builds(lambda: uuid4().hex),
    name=st.text("run <1>'", min_size=1, max_size=5),
    status=st.sampled_from(["RUNNING", "FINISHED", "FAILED", "KILLED"]),
    started=st.integers(1, 9),  # 0 is now to MLflow's client
    ended=st.integers(1, 2**63 - 1),
    tags=texts,
    params=texts,
    points=st.dictionaries(st.integers(-2, 9), st.tuples(st.integers(0, 3), metrics), max_size=4).map(
        lambda steps: [(step, when, some) for step, (when, some) in steps.items()]
    ),
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """MLflow's client of a new SQLite file, with an experiment in it, which is number 1."""
    from mlflow import MlflowClient

    folder = tmp_path_factory.mktemp("store")
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("runs", str(folder / "artifacts"))
    return client


@pytest.fixture(scope="module")
def store(client):
    return client._tracking_client.store


def in_mlflows_way(client, run):
    """The same by MLflow's own requests; the run's id."""
    from mlflow.entities import Metric, Param

    run_id = client.create_run("1", run.started, run.tags, run.name).info.run_id
    points = [Metric(name, value, when, step) for step, when, some in run.points for name, value in some.items()]
    client.log_batch(run_id, points, [Param(name, value) for name, value in run.params.items()])
    if run.status != "RUNNING":
        client.set_terminated(run_id, run.status, run.ended)
    return run_id


def rows(store, run_id):
    """All that the database holds of a run, by table; its id in them left out."""
    from mlflow.store.tracking.dbmodels.models import Base
    from sqlalchemy import select

    found = {}
    with store.engine.connect() as connection:
        for name, table in Base.metadata.tables.items():
            if "run_uuid" in table.columns:
                told = connection.execute(select(table).where(table.c.run_uuid == run_id)).mappings()
                found[name] = sorted(repr(dict(row)).replace(run_id, "ID") for row in told)
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(runs, max_size=3))
def test_the_same_rows_as_mlflows_own(client, store, wanted):
    wanted = [NewRun(**{**vars(run), "ended": None if run.status == "RUNNING" else run.ended}) for run in wanted]
    bulk_store.write(store, "1", wanted)
    for run in wanted:
        ours = rows(store, run.id)
        assert ours["runs"]
        assert ours == rows(store, in_mlflows_way(client, run))


def run(**changes):
    fields = {"id": uuid4().hex, "name": "a run", "status": "FINISHED", "started": 1, "ended": 2}
    return NewRun(**{**fields, "tags": {}, "params": {}, "points": [], **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"points": [(1, 1, {"no:\nname": 1.0})]},
        {"points": [(1, 1, {"m" * 251: 1.0})]},
        {"points": [(1, -1, {"mse": 1.0})]},
        {"points": [(1, 2**63, {"mse": 1.0})]},
        {"points": [(2**63, 1, {"mse": 1.0})]},
        {"params": {"p" * 251: "1"}},
        {"params": {"../p": "1"}},
        {"tags": {"t" * 251: "1"}},
        {"started": -1},
        {"ended": 2**63},
        {"status": "OVER"},
        {"id": "../../../../etc/a"},
        {"id": "A" * 32},
    ],
)
def test_what_mlflow_would_refuse_is_refused_and_none_of_the_runs_made(client, store, changes):
    from mlflow.exceptions import MlflowException

    before = len(client.search_runs(["1"], max_results=5000))
    with pytest.raises(MlflowException):
        bulk_store.write(store, "1", [run(), run(**changes)])
    assert len(client.search_runs(["1"], max_results=5000)) == before


def test_no_runs_in_an_experiment_that_is_gone(client, store):
    from mlflow.exceptions import MlflowException

    gone = client.create_experiment(f"gone {next(NUMBER)}")
    client.delete_experiment(gone)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        bulk_store.write(store, gone, [run()])
    with pytest.raises(MlflowException, match="No Experiment"):
        bulk_store.write(store, "77", [run()])


def test_what_is_asked_for_twice_is_made_once(client, store):
    from mlflow.exceptions import MlflowException

    first, second = run(points=[(1, 1, {"mse": 1.0})]), run()
    bulk_store.write(store, "1", [first])
    before = rows(store, first.id)
    with pytest.raises(MlflowException) as told:
        bulk_store.write(store, "1", [second, first])
    assert told.value.error_code == "RESOURCE_ALREADY_EXISTS"
    assert rows(store, first.id) == before
    assert not rows(store, second.id)["runs"]
