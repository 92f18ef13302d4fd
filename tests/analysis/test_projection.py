import numpy as np
import pytest

from analysis.projection import pca, tsne


def clusters(per=40, dim=5):
    generator = np.random.default_rng(0)
    centres = 8 * np.eye(dim)[:3]
    return np.concatenate([centre + generator.normal(0, 0.1, (per, dim)) for centre in centres])


def test_principal_components_keep_distances_of_a_plane_and_say_what_they_leave_out():
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(30, 2)) @ np.linalg.qr(generator.normal(size=(6, 2)))[0].T
    made = pca(plane)
    assert made.method == "PCA: two components, 100% of the variance"

    def distances(points):
        return np.linalg.norm(points[:, None] - points, axis=-1)

    assert np.allclose(distances(made.points), distances(plane))
    assert np.allclose(pca(-plane).points.std(0), made.points.std(0))


@pytest.mark.parametrize("project", [pca, lambda rows: tsne(rows, None)], ids=["pca", "tsne"])
@pytest.mark.parametrize(
    "rows", [np.ones((5, 3)), np.full((5, 3), np.nan), np.zeros((0, 3))], ids=["equal", "nan", "none"]
)
def test_nothing_to_see_is_no_projection(project, rows):
    assert project(rows) is None


def test_rows_that_are_not_finite_have_no_place_and_the_others_keep_theirs(tmp_path):
    rows = clusters()
    holes = np.concatenate([rows[:50], [[np.nan] * 5, [np.inf] * 5], rows[50:]])
    for project in (pca, lambda rows: tsne(rows, tmp_path)):
        with_holes, points = project(holes).points, project(rows).points
        assert np.isnan(with_holes[50:52]).all()
        assert np.array_equal(np.delete(with_holes, [50, 51], axis=0), points)


def test_tsne_tells_clusters_apart_and_is_the_same_each_time(tmp_path):
    rows = clusters()
    made, again = tsne(rows, tmp_path / "a"), tsne(rows, tmp_path / "b")
    assert made.method == "t-SNE: perplexity 30, learning rate 200, 1,000 iterations"
    assert np.array_equal(made.points, again.points)
    centres = made.points.reshape(3, -1, 2).mean(1)
    nearest = np.linalg.norm(made.points[:, None] - centres, axis=-1).argmin(1)
    assert np.array_equal(nearest, np.repeat([0, 1, 2], 40))


def test_a_fit_is_kept_for_these_rows_alone_and_made_again_when_damaged(tmp_path):
    rows = clusters(per=4)
    first = tsne(rows, tmp_path)
    (path,) = tmp_path.iterdir()
    np.save(path, np.zeros((12, 2), np.float32))
    assert not tsne(rows, tmp_path).points.any(), "from the file"
    assert tsne(rows * 2, tmp_path).points.any()
    for damage in (b"", b"\x93NUMPY\x01\x00\x10\x00{'descr'", path.read_bytes()[:-4]):
        path.write_bytes(damage)
        assert np.array_equal(tsne(rows, tmp_path).points, first.points)


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_few_points_take_a_smaller_perplexity_and_say_so(tmp_path, dim):
    rows = np.random.default_rng(0).normal(size=(10, dim))
    assert tsne(rows, tmp_path).method.startswith("t-SNE: perplexity 3.0: few points, ")
    assert np.isfinite(tsne(rows, tmp_path).points).all()
    assert tsne(rows[:3], tmp_path) is None
    assert pca(rows[:2]) is not None
