import io

import numpy as np
import pytest

from analysis.results import load
from analysis.snapshots import entropy, snapshots, thinned, usage
from trainables.storage import Store


@pytest.fixture
def run(make_run):
    made = make_run(trials=1)
    key = made.trial([(0.05, 200.0), (0.04, 250.0)], codebook_size=16, dim=4)
    made.snapshots(key, 0, 2, codes=16, dim=4, used=10)
    return made.done()


def trial_of(results):
    return results.trials[0]


def test_snapshots_come_by_epoch_with_all_that_was_kept(run):
    results = load(run)
    before, after = snapshots(results, trial_of(results))
    assert (before.epoch, after.epoch) == (0, 2)
    assert np.allclose(after.codebook, 3 * before.codebook)
    assert np.array_equal(before.originals, after.originals)
    assert (after.codebook.shape, after.patches.shape, after.embeddings.shape) == ((16, 4), (16, 4, 4, 3), (100, 4))
    assert np.array_equal(usage(results, trial_of(results)), after.counts)
    assert (after.counts > 0).sum() == 10


def rewritten(run, **changes):
    """The snapshot of epoch 2 with other arrays; None leaves one out."""
    path = next(run.glob("trials/*/snapshot-00002.npz"))
    with np.load(path) as file:
        arrays = {**file, **changes}
    content = io.BytesIO()
    np.savez(content, **{name: array for name, array in arrays.items() if array is not None})
    path.write_bytes(content.getvalue())


@pytest.mark.parametrize(
    "changes",
    [
        {"counts": None},
        {"counts": np.arange(17)},
        {"counts": -np.ones(16, int)},
        {"codes": np.full(100, 16)},
        {"codebook": np.ones((16, 5))},
        {"patches": np.zeros((16, 4, 4, 3))},
        {"images": np.zeros((8, 32, 32, 3), np.uint8), "reconstructions": np.zeros((7, 32, 32, 3), np.uint8)},
        {"embeddings": np.array([{}] * 100, object)},
    ],
    ids=str,
)
def test_a_file_of_something_else_is_skipped_with_a_sentence(run, changes):
    rewritten(run, **changes)
    results, problems = load(run), []
    assert [one.epoch for one in snapshots(results, trial_of(results), problems)] == [0]
    (problem,) = problems
    assert problem.startswith(f"The snapshot of epoch 2 of trial {trial_of(results).key} cannot be shown: it ")


def test_a_damaged_file_is_skipped_and_no_other_file_is_taken_for_one(run):
    folder = next(run.glob("trials/*"))
    damaged = folder / "snapshot-00000.npz"
    content = damaged.read_bytes()
    damaged.write_bytes(content[:2000] + bytes([content[2000] ^ 1]) + content[2001:])
    for name in ("snapshot-00001.npz.0123abcd.part", "snapshot-1.npz", "snapshot-x.npz"):
        (folder / name).write_bytes(b"")
    results, problems = load(run), []
    assert [one.epoch for one in snapshots(results, trial_of(results), problems)] == [2]
    assert len(problems) == 1
    (folder / "usage.npy").write_bytes(b"\x93NUMPY damaged")
    assert usage(results, trial_of(results)) is None


def test_codebooks_too_large_for_a_snapshot_leave_the_rest(run):
    rewritten(run, codebook=None, patches=None)
    results = load(run)
    last = snapshots(results, trial_of(results))[-1]
    assert (last.codebook, last.patches, len(last.counts)) == (None, None, 16)


def test_a_trial_without_snapshots_and_a_storage_that_is_gone(run, monkeypatch):
    results, problems = load(run), []
    for file in run.glob("trials/*/*"):
        file.unlink()
    assert snapshots(results, trial_of(results), problems) == []
    assert (results.shown.trial, usage(results, trial_of(results)), problems) == (None, None, [])
    monkeypatch.setitem(results.record.sweep, "storage", "s3://gone/x?endpoint_override=127.0.0.1:9&scheme=http")
    assert snapshots(results, trial_of(results), problems) == []
    assert problems[0].startswith("Snapshots cannot be read: ")
    again = load(run)
    monkeypatch.setitem(again.record.sweep, "storage", "s3://gone/x?endpoint_override=127.0.0.1:9&scheme=http")
    assert again.shown == (None, "", (), problems, True), "asked once, whatever is drawn of it"


def test_the_pictures_of_a_sweep_show_the_knees_trial_and_name_it(make_run):
    made = make_run()
    keys = [key for beta in (0.1, 1.0) for key in made.seeds([0.02 * (1 + beta)], [300 + beta], commitment_weight=beta)]
    made.snapshots(keys[1], 0, 4)
    found = load(made.done()).shown
    assert (found.trial.key, found.label) == (keys[1], "beta 1, seed 0")
    made.snapshots(keys[0], 0, 4)
    assert load(made.folder).shown.label == f"{load(made.folder).knee.label}, seed 0"


def test_a_training_that_is_not_finished_is_shown_as_far_as_it_is(make_run):
    made = make_run(trials=1)
    key = made.trial([(0.05, 200.0)], end=None)
    made.snapshots(key, 0, 1)
    assert [one.epoch for one in load(made.close()).shown.snapshots] == [0, 1]


def test_thinned_keeps_the_first_and_the_last():
    assert thinned(list(range(20)), 5) == [0, 5, 10, 14, 19]
    assert thinned([1, 2], 5) == [1, 2]
    assert thinned([], 5) == []


def test_entropy_is_that_of_the_shares():
    assert entropy(np.array([5, 5, 5, 5, 0])) == 2
    assert entropy(np.array([5, 0])) == entropy(np.array([0, 0])) == 0


def test_names_of_snapshots_are_those_that_trials_write(tmp_path):
    from trainables.runs import SNAPSHOT
    from trainables.snapshots import write_snapshot

    write_snapshot(Store(str(tmp_path)), 100_000, {"x": np.ones(1)})
    assert [int(SNAPSHOT.fullmatch(name)[1]) for name in Store(str(tmp_path)).names()] == [100_000]
