"""Points written in bulk: the same rows in the same tables as MLflow's own store writes, one object at a time."""

import inspect
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tracked import assert_mlflow_holds_the_journal, finish, open_sweep, report, start

from trainables import bulk_store
from trainables.tracking import sync

pytestmark = pytest.mark.service
NUMBER = count()

points = st.tuples(
    st.sampled_from(["mse", "perplexity", "train/mse"]),
    st.one_of(st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf")]), st.floats()),
    st.integers(0, 3),
    st.integers(-2, 4),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """MLflow's store on a new SQLite file, with points in bulk, and an experiment in it."""
    bulk_store.install()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = tmp_path_factory.mktemp("store")
    store = SqlAlchemyStore(f"sqlite:///{folder}/mlflow.db", str(folder))
    store.create_experiment("points")
    return store


def new_run(store):
    return store.create_run("1", "user", 0, [], f"run {next(NUMBER)}").info.run_id


def rows(store, run_id):
    """What the two tables hold of a run."""
    from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlMetric

    with store.ManagedSessionMaker() as session:
        return [
            sorted(
                (row.key, row.step, row.timestamp, row.value, row.is_nan)
                for row in session.query(table).filter(table.run_uuid == run_id)
            )
            for table in (SqlMetric, SqlLatestMetric)
        ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(points, max_size=12), max_size=4))
def test_the_same_rows_as_mlflows_own(store, batches):
    from mlflow.entities import Metric

    own = inspect.unwrap(type(store)._log_metrics_once)
    ours, theirs = new_run(store), new_run(store)
    for batch in batches:
        metrics = [Metric(*point) for point in batch]
        store.log_batch(ours, metrics, [], [])
        own(store, theirs, metrics)
    assert rows(store, ours) == rows(store, theirs)


def test_a_point_that_mlflow_refuses_is_refused_and_nothing_of_its_batch_kept(store):
    from mlflow.entities import Metric
    from mlflow.exceptions import MlflowException

    run_id = new_run(store)
    with pytest.raises(MlflowException, match="Names may only contain"):
        store.log_metric(run_id, Metric("no:\nname", 1.0, 0, 0))
    with pytest.raises(MlflowException, match="metrics"):
        store.log_batch(run_id, [Metric("mse", 1.0, 0, 0), Metric("mse", 1.0, 0, "soon")], [], [])
    assert rows(store, run_id) == [[], []]


def test_parameters_are_told_once_and_stay_as_they_are(store):
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    run_id = new_run(store)
    first = [Param("decay", "0.9"), Param("seed", "1")]
    store.log_batch(run_id, [], first, [])
    store.log_batch(run_id, [], [*first, Param("epochs", "3")], [])
    with pytest.raises(MlflowException, match="Changing param values is not allowed"):
        store.log_batch(run_id, [], [Param("new", "1"), Param("seed", "2")], [])
    assert store.get_run(run_id).data.params == {"decay": "0.9", "seed": "1", "epochs": "3"}


def test_a_deleted_run_takes_no_points(store):
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    run_id = new_run(store)
    store.delete_run(run_id)
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        store.log_metric(run_id, Metric("mse", 1.0, 0, 0))
    with pytest.raises(MlflowException, match="must be in the 'active' state"):
        store.log_batch(run_id, [], [Param("decay", "0.9")], [])


def test_a_sweep_is_told_to_a_database_without_an_object_for_each_point(tmp_path):
    from mlflow.store.tracking.dbmodels.models import SqlMetric, SqlParam
    from sqlalchemy import event

    folder, made = tmp_path / "beta_ablation" / "bulk", []
    journal = open_sweep(folder)
    start(journal, "aaa", "bbb")
    report(journal, "aaa", 1, 2, 3)
    report(journal, "bbb", 1)
    finish(journal, "aaa", "bbb")
    journal.write("done")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"

    def listener(target, args, kwargs):
        made.append(kwargs)

    for table in (SqlMetric, SqlParam):
        event.listen(table, "init", listener)
    try:
        assert sync(folder, uri) == 3
    finally:
        for table in (SqlMetric, SqlParam):
            event.remove(table, "init", listener)
    assert made == []
    assert_mlflow_holds_the_journal(uri, folder)
