import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from analysis import figures
from analysis.figures import (
    FIGURES,
    FITTED,
    curves,
    epochs,
    evolution,
    front,
    images,
    patches,
    projection,
    style,
    usage,
    write_figures,
)
from analysis.figures.__main__ import main
from analysis.projection import pca
from analysis.results import load


@pytest.fixture
def trained(make_run):
    """A training of 16 codes, of which 10 are used, with three snapshots."""
    run = make_run(trials=1)
    key = run.trial([(0.05, 8.0), (0.03, 9.0), (0.025, 10.0), (0.02, 10.0)], codebook_size=16, dim=4)
    run.snapshots(key, 0, 2, 4, codes=16, dim=4, used=10)
    return run.done()


def test_pareto_names_every_configuration_and_says_what_was_measured(ablation):
    figure = front(load(ablation))
    (axes,) = figure.axes
    (legend,) = figure.legends
    entries = [text.get_text() for text in legend.get_texts()]
    assert entries == ["front of the means", "95 % band of the front", "1: beta 0.1", "2: beta 0.25", "3: beta 1"]
    numbers = {note.get_text(): note.xy for note in axes.texts if isinstance(note, Annotation)}
    assert numbers == {str(i): pytest.approx(mean[::-1]) for i, mean in enumerate(load(ablation).means, 1)}
    assert axes.get_title(loc="left") == "MSE against perplexity: cifar10-mini, after epoch 4, 3 seeds"
    assert axes.get_ylabel().startswith("MSE on [-1, 1], whole test set")
    seeds = np.concatenate([dots.get_offsets() for dots in axes.collections if len(dots.get_offsets()) == 3])
    assert len(seeds) == 9


def test_grid_has_the_originals_then_a_row_a_configuration(ablation):
    figure = images(load(ablation))
    assert len(figure.axes) == 4
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels[0] == "original"
    assert labels[1].startswith("beta 0.1\nMSE 0.0")
    assert labels[1].endswith("dB")
    assert "the lowest seed of each" in figure.get_suptitle()
    FigureCanvasAgg(figure).draw()
    width, height = figure.get_size_inches()
    strip = figure.axes[0].get_images()[0].get_array()
    place = figure.axes[0].get_position()
    assert np.isclose(place.width * width / (place.height * height), strip.shape[1] / strip.shape[0])


def test_curves_have_a_line_a_configuration_over_all_epochs(ablation):
    figure = curves(load(ablation))
    for axes in figure.axes:
        assert [list(line.get_xdata()) for line in axes.lines] == [[1, 2, 3, 4]] * 3


def test_nothing_completed_gives_no_picture(make_run):
    results = load(make_run().close())
    assert (front(results), images(results), curves(results)) == (None, None, None)


# The codebook


def test_the_same_images_have_a_row_an_epoch(trained):
    figure = epochs(load(trained))
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels == ["original", "before training", "epoch 2\nMSE 0.0300 · 21.2 dB", "epoch 4\nMSE 0.0200 · 23.0 dB"]


def test_a_codebooks_evolution_is_one_projection_with_used_and_dead_codes_apart(trained):
    figure = evolution(load(trained))
    panels = np.reshape(figure.axes, (2, 3))
    assert [axes.get_title() for axes in panels[0]] == [
        f"{when}\n10 of 16 used" for when in ("before training", "epoch 2", "epoch 4")
    ]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == ["t-SNE", "PCA"]
    for row in panels:
        assert len({(axes.get_xlim(), axes.get_ylim()) for axes in row}) == 1
        assert [[len(line.get_xdata()) for line in axes.lines] for axes in row] == [[6, 10]] * 3, "dead, then used"
    places = [np.concatenate([line.get_xydata() for line in axes.lines]) for axes in panels[1]]
    assert np.allclose(places[2] - places[1], places[1] - places[0], atol=1e-4), "straight, in one projection of all"
    for axes in panels[:, 2]:
        (paths,) = axes.collections
        assert np.allclose([path[-1] for path in paths.get_segments()], axes.lines[1].get_xydata()), (
            "ways of used codes"
        )


@pytest.mark.parametrize("kept", [(), (3,)], ids=["none", "one"])
def test_a_codebook_that_nothing_is_known_to_have_moved_has_no_evolution(make_run, kept):
    run = make_run()
    run.snapshots(run.trial([(0.02, 9.0)] * 4, codebook_size=16, dim=4), *kept, codes=16, dim=4, used=3)
    results = load(run.done())
    assert evolution(results) is None
    assert (projection(results) is None) == (patches(results) is None) == (epochs(results) is None) == (not kept)


def test_outputs_and_codes_are_in_one_projection(trained):
    figure = projection(load(trained))
    for axes in figure.axes:
        assert [len(line.get_xdata()) for line in axes.lines] == [100, 6, 10]
        outputs, _, used = (line.get_xydata() for line in axes.lines)
        assert np.linalg.norm(outputs[:, None] - used, axis=-1).min(1).max() < np.ptp(used), "near the codes"
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries == ["encoder outputs: 100 test positions", "used codes: 10", "codes not used on the test set: 6"]


def test_usage_is_sorted_and_names_entropy_perplexity_and_dead_codes(trained):
    figure = usage(load(trained))
    *lines, alike = figure.axes[0].lines
    assert [list(line.get_xdata()) for line in lines] == [list(range(1, 11))] * 3
    assert np.allclose(lines[0].get_ydata(), (np.arange(16, 6, -1)) / 115)
    assert alike.get_ydata()[0] == 1 / 16
    assert [text.get_text() for text in figure.legends[0].get_texts()][-2:] == [
        "epoch 4: 3.28 bits, 10 of 16, 6 dead", "all codes alike",
    ]  # fmt: skip
    assert figure.axes[0].get_yscale() == "linear", "of codes that are used nearly alike"


def test_usage_of_a_sweep_has_a_line_a_configuration(make_run):
    run = make_run()
    for beta, used in ((0.1, 500), (1.0, 100)):
        keys = run.seeds([0.02, 0.03], [300, 310], commitment_weight=beta)
        run.snapshots(keys[0], used=used)
    entries = [text.get_text() for text in usage(load(run.done())).legends[0].get_texts()]
    assert [entry.split(":")[0] for entry in entries] == ["beta 0.1", "beta 1", "all codes alike"]
    assert entries[1].endswith("of 512, 412 dead")


def test_patches_are_sorted_by_use_with_dead_codes_apart(trained):
    figure = patches(load(trained))
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "10 codes used, the most often first", "6 codes not used on the test set",
    ]  # fmt: skip


# A paper's column


@pytest.fixture
def everything(make_run):
    """A run with something in every figure, and long names."""
    run = make_run(swept=("estimator", "commitment_weight", "codebook_size", "decay"), sampler="tpe", seeds=2)
    for estimator in ("rotation_unscaled", "reflection"):
        for place, beta in enumerate((0.123456, 0.7654321, 2.3456789, 3.456789)):
            config = {"estimator": estimator, "commitment_weight": beta, "dim": 4, "decay": 0.9 + place / 1000}
            config["codebook_size"] = 512 * 2 ** (place % 2)
            mses = [0.02 + 0.003 * place + noise for noise in (0, 0.0003, 0.0006)]
            keys = run.seeds(mses, [300 + 90 * place, 310 + 90 * place, 305 + 90 * place], **config)
            run.reconstructions(keys[0])
            run.snapshots(keys[1], 0, 1, 2, 3, 4, codes=config["codebook_size"], dim=4, used=400)
    return run.done()


@pytest.fixture
def quick_tsne(monkeypatch):
    """No fit of thousands of codes in a test that is of layouts."""
    for module in (figures.evolution, figures.projection):
        monkeypatch.setattr(sys.modules[module.__module__], "tsne", lambda rows, folder: pca(rows))


@pytest.mark.slow
def test_in_a_papers_column_nothing_is_cut_off_or_written_over(everything, quick_tsne):
    results = load(everything)
    with rc_context(style.PAPER):
        drawn = {name: draw(results) for name, draw in {**FIGURES, **FITTED}.items()}
        assert None not in drawn.values()
        for name, figure in drawn.items():
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            width, height = figure.get_size_inches()
            assert width == 3.25
            assert height < 9, "higher than a page"
            box = figure.get_tightbbox(canvas.get_renderer())
            assert box.x0 > -0.01, name
            assert box.y0 > -0.01, name
            assert box.x1 < width + 0.01, name
            assert box.y1 < height + 0.01, name
            words = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
            sizes = {text.get_fontsize() for text in words}
            assert sizes <= {7, 8}, name
            panels = [axes.get_window_extent() for axes in figure.axes]
            for legend in figure.legends:
                assert not any(legend.get_window_extent().overlaps(panel) for panel in panels), name


@pytest.mark.slow
def test_a_papers_files_keep_text_and_fonts_and_are_the_same_each_time(everything, quick_tsne):
    results = load(everything)
    first = {path: path.read_bytes() for path in write_figures(results, fitted=True, paper=True)}
    assert {path.suffix for path in first} == {".svg", ".pdf", ".md"}
    assert {path.stem for path in first} == {*FIGURES, *FITTED, "captions"}
    assert {path: path.read_bytes() for path in write_figures(results, fitted=True, paper=True)} == first
    svg = first[everything / "figures" / "paper" / "pareto.svg"].decode()
    root = ElementTree.fromstring(svg)
    assert root.get("width") == "234pt"
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any(word and word.startswith("perplexity, whole test set") for word in words)
    assert "MSE against perplexity: cifar10-mini" in svg
    pdf = first[everything / "figures" / "paper" / "pareto.pdf"]
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    assert "## evolution" in (everything / "figures" / "paper" / "captions.md").read_text()


def test_the_command_draws_a_final_training_and_says_what_it_lacks(trained, capsys):
    main(str(trained))
    said = capsys.readouterr().out
    assert "figures/evolution.png" in said
    assert "Nothing to show in rate, tuning, reconstructions; docs/figures.md" in said
    assert "snapshots" not in said
