import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation

from analysis.figures import curves, front, images
from analysis.results import load


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
