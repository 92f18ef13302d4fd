import itertools

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from analysis.figures import curves, front, images
from analysis.results import load


def texts(figure):
    return [text.get_text() for axes in figure.axes for text in axes.texts] + [text.get_text() for text in figure.texts]


def test_pareto_names_every_configuration_and_says_what_was_measured(ablation):
    figure = front(load(ablation))
    (axes,) = figure.axes
    assert {"beta 0.1", "beta 0.25", "beta 1"} <= set(texts(figure))
    assert axes.get_title(loc="left") == "MSE against perplexity: cifar10-mini, after epoch 4, 3 seeds"
    assert axes.get_ylabel().startswith("MSE on [-1, 1], whole test set")
    seeds = np.concatenate([dots.get_offsets() for dots in axes.collections if len(dots.get_offsets()) == 3])
    assert len(seeds) == 9


def test_names_in_the_pareto_plot_do_not_overlap(make_run):
    run = make_run(swept=("commitment_weight", "estimator"))
    for i, beta in enumerate((0.1, 0.25, 0.5, 1.0, 2.0)):
        for estimator in ("rotation", "ste"):
            run.seeds([0.02 + i * 1e-4, 0.021], [200 + i, 201], commitment_weight=beta, estimator=estimator)
    figure = front(load(run.done()))
    FigureCanvasAgg(figure).draw()
    notes = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    boxes = [super(Annotation, note).get_window_extent() for note in notes]
    assert len(boxes) == 10
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_grid_has_the_originals_then_a_row_a_configuration(ablation):
    figure = images(load(ablation))
    assert len(figure.axes) == 4
    labels = texts(figure)
    assert labels[0] == "original"
    assert labels[1].startswith("beta 0.1\nMSE 0.0")
    assert labels[1].endswith("dB")
    assert any("seed 0" in label for label in labels)
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
