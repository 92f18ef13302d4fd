import io
import math
import random
from types import MappingProxyType

import pytest
from matplotlib.image import imread
from rich.console import Console

from analysis.compare import main, named, write_comparison
from analysis.figures.runs import fronts_of_runs
from analysis.results import load
from analysis.run_comparison import at_one_epoch, covers, effects
from analysis.run_findings import LETTERS, compare
from tests.analysis.conftest import RunMaker
from vqcore.errors import ConfigError

BETAS = {0.1: (0.020, 260.0), 0.25: (0.022, 300.0), 1.0: (0.030, 200.0)}


@pytest.fixture
def make(tmp_path):
    """A run of that name with three betas; ``better`` scales its MSE, ``luck`` is the seed of its seeds' spread."""

    def make(
        name, seeds=3, better=1.0, luck=1, betas=BETAS, folder="beta_ablation", config=MappingProxyType({}), **params
    ):
        run = RunMaker(tmp_path / folder / name, name, ("commitment_weight",), trials=len(betas) * seeds, **params)
        chance = random.Random(luck)
        for beta, (mse, perplexity) in betas.items():
            run.seeds(
                [better * mse + chance.gauss(0, 0.0003) for _ in range(seeds)],
                [perplexity + chance.gauss(0, 4) for _ in range(seeds)],
                commitment_weight=beta,
                **config,
            )
        return load(run.done())

    return make


def told(*runs):
    return "\n".join(compare(runs).sentences)


def differing(*runs):
    return {row[1]: row[2] for row in compare(runs).differences.rows}


def printed(comparison):
    console = Console(file=io.StringIO(), width=80)
    console.print(comparison.page(console))
    return console.file.getvalue().splitlines()


def test_a_run_that_repeats_another_is_the_same_to_the_last_bit(make):
    comparison = compare([make("old"), make("new", tags={"commit": "7654321"})])
    assert [row[1:] for row in comparison.differences.rows] == [("commit", "1234567 in A; 7654321 in B")]
    assert "data (source, hash, image size)" in comparison.same(6)
    told = "\n".join(comparison.sentences)
    assert "B repeats 9 trials of A (configuration, seed, data): all equal to the last bit, in 36 epochs." in told
    assert "Minus that of A: B the same." in told
    assert comparison.effects_table.rows == ()


def test_one_bit_is_a_difference(make, tmp_path):
    old, new = make("old"), RunMaker(tmp_path / "beta_ablation" / "new", "new", ("commitment_weight",))
    for trial in old.trials:
        curve = [(trial.epochs[epoch]["mse"], trial.epochs[epoch]["perplexity"]) for epoch in (1, 2, 3, 4)]
        if trial.number == 4:
            curve[2] = (math.nextafter(curve[2][0], 1), curve[2][1])
        new.trial(curve, seed=trial.config["seed"], commitment_weight=trial.config["commitment_weight"])
    assert "8 equal to the last bit" in told(old, load(new.done()))


def test_seconds_are_no_metric(make, tmp_path):
    old, new = (RunMaker(tmp_path / "beta_ablation" / name, name, ()) for name in ("old", "new"))
    old.trial([(0.1, 20)], report={"seconds": 1.0})
    new.trial([(0.1, 20)], report={"seconds": 2.0})
    assert "all equal" in told(load(old.done()), load(new.done()))


def test_only_what_differs_is_listed(make):
    first = make("first")
    second = make("second", config={"decay": 0.8}, tags={"hardware": "H200"}, betas={0.1: (0.02, 260.0)})
    assert differing(first, second) == {
        "beta": "0.1, 0.25, 1 in A; 0.1 in B",
        "decay": "0.99 in A; 0.8 in B",
        "hardware": "cpu in A; H200 in B",
    }
    third = make("third")
    assert differing(first, second, third)["decay"] == "0.99 in A, C; 0.8 in B"


def test_what_differs_is_told_by_the_specification_where_it_is_recorded(make, tmp_path):
    run = RunMaker(tmp_path / "pareto" / "search", "search", ("commitment_weight",), sampler="tpe")
    record = run.seeds([0.02], [200], commitment_weight=0.3) and load(run.done())
    record.record.sweep["toml"] = {"space": {"commitment_weight": {"low": 0.05, "high": 4.0, "log": True}}}
    found = differing(make("grid"), record)
    assert found["beta"] == "0.1, 0.25, 1 in A; 0.05 to 4, logarithmic in B"
    assert found["sampler"] == "not recorded in A; tpe in B"


def test_equal_commits_with_changes_are_not_said_to_be_the_same_code(make):
    runs = [make(name, tags={"commit": "1234567+changes"}) for name in ("old", "new")]
    assert differing(*runs) == {"commit": "1234567+changes in A, B; uncommitted changes are not recorded"}


def test_a_real_difference_is_told_with_its_effect_and_interval(make):
    comparison = compare([make("a"), make("b", better=0.8, luck=2)])
    assert any("B against A in 3 configurations: MSE better in 3 and on average" in s for s in comparison.sentences)
    rows = {row[:3]: row[3:] for row in comparison.effects_table.rows}
    n, effect, interval, p = rows["beta 1", "MSE", "B"]
    low, high = map(float, interval.strip("[]").split(", "))
    assert (n, effect[0]) == ("3", "-")
    assert low < -0.006 < high < 0
    assert float(p) < 0.05
    assert ("all 3, on average", "MSE", "B") in rows
    assert "Holm's correction for 8 tests" in comparison.effects_table.notes[0]


def test_chance_is_not_told_apart(make):
    sentences = told(make("a"), make("b", luck=2))
    assert "MSE not told apart in 3 and on average" in sentences
    assert "Not told apart does not mean equal." in sentences


def test_the_effect_of_a_field_that_was_changed_is_tested(make):
    sentences = told(make("a"), make("b", better=0.8, luck=2, config={"learning_rate": 1e-3}))
    assert "B against A in 3 configurations, alike but for lr: MSE better in 3" in sentences
    assert "repeats" not in sentences


def test_a_field_that_one_run_sweeps_is_matched_and_not_dropped(make):
    found = effects(
        at_one_epoch([make("a"), make("b", betas={0.25: (0.02, 300.0), 2.0: (0.05, 100.0)}, luck=2)], LETTERS)
    )
    assert {one.label for one in found} == {"beta 0.25"}


def test_other_images_cannot_be_compared(make):
    first, second = make("a"), make("b", data_hash="f" * 16, image_size=64)
    comparison = compare([first, second])
    (sentence,) = comparison.sentences
    assert sentence.startswith("B cannot be compared with A: its images are not those of A: cifar10-mini of 64 pixels")
    assert not comparison.effects
    assert "B is on another scale" in "".join(text.get_text() for text in fronts_of_runs(comparison.runs).axes[0].texts)


def test_data_without_a_hash_cannot_be_compared(make):
    (sentence,) = compare([make("a", data_hash=None, tags={"data_hash": None}), make("b")]).sentences
    assert sentence == "B cannot be compared with A: the hash of its data, or that of the reference, is not recorded."


def test_runs_are_compared_after_the_last_epoch_that_all_have(make, tmp_path):
    longer = RunMaker(tmp_path / "beta_ablation" / "longer", "longer", ())
    for seed in range(3):
        longer.trial([(0.1, 20 + seed), (0.09 + seed / 1000, 30), (0.01, 400)], seed=seed, epochs=3)
    shorter = RunMaker(tmp_path / "beta_ablation" / "shorter", "shorter", ())
    for seed in range(3):
        shorter.trial([(0.1, 20 + seed), (0.09 + seed / 2000, 31)], seed=seed, epochs=2)
    comparison = compare([load(longer.done()), load(shorter.done())])
    assert comparison.sentences[0] == "Compared after epoch 2, the last that all have (trained to: A 3, B 2)."
    assert [one.reference.mean for one in comparison.effects] == pytest.approx([0.091, 30])


def test_without_a_common_epoch_it_says_so(make, tmp_path):
    late, early = (RunMaker(tmp_path / "beta_ablation" / name, name, ()) for name in ("late", "early"))
    key = late.trial([], end=None)
    late.journal.write("epoch", trial=key, epoch=2, metrics={"mse": 0.1, "perplexity": 20.0})
    late.journal.write("end", trial=key, status="completed", epoch=2)
    early.trial([(0.1, 20)])
    (sentence,) = told(load(late.done()), load(early.done())).splitlines()
    assert sentence == "B cannot be compared with A: no epoch is recorded of all compared trials of A, B."


def test_one_seed_makes_no_claim(make):
    comparison = compare([make("a", seeds=1), make("b", seeds=1, better=0.5, luck=2)])
    sentences = "\n".join(comparison.sentences)
    assert "MSE no claim from one common seed in 3" in sentences
    assert "No claim about the front of A, B: one seed a configuration." in sentences
    assert "Hypervolume" not in sentences
    assert {row[-1] for row in comparison.effects_table.rows} == {"–"}


def test_the_seed_that_chose_is_in_no_difference(make):
    runs = [make("a", sampler="tpe"), make("b", luck=2, sampler="tpe")]
    assert {one.test.difference.n for one in effects(at_one_epoch(runs, LETTERS))} == {2}


def test_runs_without_a_common_configuration_are_compared_by_their_fronts(make):
    other = {2.0: (0.015, 320.0), 4.0: (0.012, 310.0)}
    sentences = told(make("a"), make("b", betas=other, luck=2))
    assert "B and A have no configuration in common, so none is tested." in sentences
    assert "more than the seeds' spread" in sentences


def test_a_hypervolume_is_a_share_of_one_box(make):
    runs = [make("a"), make("b", better=0.7, luck=2), make("c", seeds=1)]
    found = covers(at_one_epoch(runs, LETTERS))
    assert [one.letter for one in found.each] == ["A", "B"]
    worst = [min(value for g in r.groups for value in g.by_seed("perplexity").values()) for r in runs[:2]]
    assert found.reference[0] > 0.03
    assert found.reference[1] < min(worst)
    a, b = found.each
    assert a.interval[0] <= a.share <= a.interval[1]
    assert b.lead[0] == pytest.approx(b.share - a.share)
    assert b.lead[1] > 0


def test_the_plot_has_a_line_and_a_name_a_run(make):
    comparison = compare([make("a"), make("b", better=0.8, luck=2)])
    figure = fronts_of_runs(comparison.runs)
    (axes,) = figure.axes
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        "A: beta_ablation/a, 3 configurations, 3 seeds",
        "B: beta_ablation/b, 3 configurations, 3 seeds",
    ]
    assert axes.get_ylabel().startswith("MSE on [-1, 1], whole test set")
    assert len({line.get_color() for line in axes.lines}) == 2


def test_five_runs_with_long_names_fit_forty_lines_of_eighty_columns(make):
    betas = {0.1 + i / 10: (0.02 + i / 1000, 300.0 - i) for i in range(8)}
    names = [f"{'a-long-name-of-a-run-' * 4}{i}" for i in range(5)]
    decays = (0.99, 0.9, 0.99, 0.8, 0.99)
    runs = [
        make(
            name, luck=i, betas=betas, config={"decay": decays[i]},
            tags={"commit": f"{i}" * 12, "torch": f"2.{i}", "numpy": f"2.{i}", "hardware": f"AMD EPYC 9{i}54 96-Core"},
        )
        for i, name in enumerate(names)
    ]  # fmt: skip
    lines = printed(compare(runs))
    print("\n".join(lines))
    assert len(lines) <= 36  # and up to four of where the files are
    assert max(map(len, lines)) <= 80
    assert any("more in compare.md" in line for line in lines)


def test_the_command_writes_markdown_and_the_plot_twice_the_same(make, tmp_path, capsys):
    make("a"), make("b", better=0.8, luck=2)
    main(("a", "b"), out=tmp_path)
    folder = tmp_path / "compare" / "a+b"
    assert {path.name for path in folder.iterdir()} == {"compare.md", "front.png", "front.svg"}
    assert "Is the difference real?" in (folder / "compare.md").read_text()
    assert imread(folder / "front.png").shape[0] > 600
    assert "B against A" in capsys.readouterr().out
    before = (folder / "front.svg").read_bytes()
    write_comparison(compare(named(("a", "b"), tmp_path)), folder)
    assert (folder / "front.svg").read_bytes() == before


def test_what_is_asked_wrongly_is_said_with_the_next_step(make, tmp_path):
    make("a"), make("b")
    RunMaker(tmp_path / "beta_ablation" / "begun", "begun", ()).trial([(0.1, 5)], end=None)
    wrong = {
        (): "0 runs named: a comparison takes 2 to 5, the first of them the reference; the latest in",
        ("a",): "1 run named: a comparison takes 2 to 5",
        ("a",) * 6: "6 runs named: a comparison takes 2 to 5",
        ("a", str(tmp_path / "beta_ablation" / "a")): "is the same run as a; name each once",
        ("a", "a"): "a: is the same run as a; name each once",
        ("a", "begun"): "begun: none of its 1 trial has completed, and only completed ones are compared; --resume it",
        ("a", "nosuch"): "'nosuch': no such run",
    }
    for names, message in wrong.items():
        with pytest.raises(ConfigError) as error:
            named(names, tmp_path)
        assert message in str(error.value)
