import pytest

from analysis.results import load
from analysis.tables import all_tables, beta_table, paper, size_table, write_tables


@pytest.fixture
def sizes(make_run):
    run = make_run(swept=("codebook_size",))
    for i, codes in enumerate((128, 256, 512, 1024)):
        run.seeds([0.03 - i / 1000, 0.0301 - i / 1000], [60 * 2**i, 61 * 2**i], codebook_size=codes)
    return run.done()


def test_our_sizes_stand_beside_the_papers(sizes):
    rows = size_table(load(sizes)).rows
    assert [row[:2] for row in rows] == [
        ("128", "ours"),
        ("small (256)", "paper"),
        ("small (256)", "paper's log, 50 epochs"),
        ("small (256)", "ours"),
        ("medium (512)", "paper"),
        ("medium (512)", "ours"),
        ("large (1024)", "paper"),
        ("large (1024)", "paper's log, 100 epochs"),
        ("large (1024)", "ours"),
        ("x-large (2048)", "paper"),
        ("x-large (2048)", "ours"),
    ]
    assert rows[1][2:] == ("1", "0.0077", "317.6", "0.0262", "0.0451")
    assert rows[3][2:5] == ("2", "0.029050 ± 0.000071", "121.0 ± 1.4")
    assert rows[-1][2:] == ("0", "–", "–", "–", "–")


def test_the_papers_identical_rows_are_named_as_such(sizes):
    rows = {row[0]: row[3:] for row in size_table(load(sizes)).rows if row[1] == "paper"}
    assert rows["small (256)"] == rows["large (1024)"] == rows["x-large (2048)"]
    notes = " ".join(size_table(load(sizes)).notes)
    assert "one row, number for number" in notes
    assert "impossible with 256 codes" in notes
    assert "One seed a row" in notes


def test_the_paper_published_one_row_thrice():
    small, large, xlarge = (row for row in paper()["table2"] if row["variant"] in ("small", "large", "xlarge"))
    numbers = ("total", "reconstruction", "codebook", "perplexity")
    assert len({tuple(row[name] for name in numbers) for row in (small, large, xlarge)}) == 1


def test_training_rows_have_no_test_log(sizes):
    assert not any("log" in row[1] for row in size_table(load(sizes), "train_").rows)


def test_each_table_of_the_paper_where_its_field_is_swept(sizes, make_run):
    assert {"paper_table2", "paper_table3"} & set(all_tables(load(sizes))) == {"paper_table2"}
    text = next(path for path in write_tables(load(sizes)) if path.stem == "paper_table2").read_text()
    assert "What sets them apart" in text
    assert "| codes K | 256, 512, 1024, 2048 | 128, 256, 512, 1024 |" in text


def test_neither_table_where_neither_is_swept(make_run):
    run = make_run(swept=("decay",))
    run.seeds([0.02], [200], decay=0.9)
    assert set(all_tables(load(run.done()))) == {"results"}


def test_of_many_alike_in_size_and_estimator_the_best_stands_there(make_run):
    run = make_run(swept=("codebook_size", "decay", "estimator"))
    for decay, mse in ((0.8, 0.021), (0.9, 0.020), (0.99, 0.03)):
        for estimator in ("ste", "rotation"):
            run.seeds([mse], [200], codebook_size=512, decay=decay, estimator=estimator)
    table = size_table(load(run.done()))
    ours = [row[1] for row in table.rows if row[0] == "medium (512)" and row[1] != "paper"]
    assert ours == ["ours: rotation, decay 0.9", "ours: ste, decay 0.9"]
    assert (
        table.notes[-1] == "of those alike in codebook_size and estimator the lowest mean MSE; 4 more are in results.md"
    )


def test_nothing_completed_leaves_the_papers_rows(make_run):
    run = make_run(swept=("codebook_size", "commitment_weight"))
    results = load(run.close())
    assert len(size_table(results).rows) == 10
    assert len(beta_table(results).rows) == 10
