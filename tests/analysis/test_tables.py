import io
import shutil
import subprocess

import pyarrow as pa
import pyarrow.csv
import pytest
from rich.console import Console

from analysis.latex import latex_text
from analysis.layout import Table, markdown_text
from analysis.paper import caveat_table, paper_table
from analysis.results import load
from analysis.tables import all_tables, groups_table, losses_table, main, write_tables


def shown(renderable, width=200):
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return console.file.getvalue()


def test_groups_with_mean_sd_n_and_what_the_mse_is_of(ablation):
    table = groups_table(load(ablation))
    assert [row[:2] for row in table.rows] == [("beta 0.1 *", "3"), ("beta 0.25 *", "3"), ("beta 1", "3")]
    assert "±" in table.rows[0][2]
    text = table.markdown()
    assert "MSE on [-1, 1]" in text
    assert "not comparable across beta" in losses_table(load(ablation)).markdown()


def test_total_is_the_papers_formula(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.25)
    group = load(run.done()).groups[0]
    assert group.mean("total") == pytest.approx(0.02 + 1.25 * 0.02 / 1.25)
    assert group.mean("train_total") == pytest.approx(0.95 * group.mean("total"))


def test_the_papers_rows_stand_beside_ours(ablation):
    rows = {row[:2]: row[2:] for row in paper_table(load(ablation), 3).rows}
    assert [beta for beta, whose in rows if whose == "paper"] == ["0.1", "0.25", "0.5", "1", "2"]
    assert rows["0.25", "paper"] == ("1", "0.0102", "282.6", "0.0342", "0.0529")
    assert rows["0.25", "ours"][:2] == ("3", "0.02170 ± 0.00034")
    assert rows["0.5", "ours"] == ("0", "–", "–", "–", "–")
    train = {row[:2]: row[2:] for row in paper_table(load(ablation), 3, "train").rows}
    assert train["0.25", "paper"][1] == "0.0095"


def test_tables_fit_a_terminal_of_80_columns(make_run):
    run = make_run(swept=("commitment_weight", "estimator"))
    for estimator in ("rotation", "ste"):
        run.seeds([0.021234, 0.0221, 0.0213], [200, 301, 250], commitment_weight=0.25, estimator=estimator)
    for tables in all_tables(load(run.done())).values():
        for table in tables:
            if table.left < 3:
                body = shown(table.rich(), 80).splitlines()[: 2 + len(table.rows)]
                assert len([line for line in body if line.strip()]) == 2 + len(table.rows)
                assert not any("…" in line for line in body)


def test_caveats_stand_side_by_side(ablation):
    rows = {row[0]: row[1:] for row in caveat_table(load(ablation), 3).rows}
    assert "averaged over batches" in rows["perplexity"][0]
    assert "whole set" in rows["perplexity"][1]
    assert rows["bottleneck"][0].startswith("leaks")
    assert rows["epochs"] == ("50", "4")
    assert rows["codes K"] == ("1024", "512")


def test_markdown_files_list_what_was_left_out(ablation):
    paths = write_tables(load(ablation))
    assert [path.name for path in paths if path.suffix == ".md"] == ["results.md", "front.md", "paper_table3.md"]
    assert "diverged after epoch 1: loss is not finite" in paths[0].read_text()
    assert "What sets them apart" in paths[2].read_text()


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("a_b", r"a\_b"), ("[x](y)", r"[x\](y)"), ("on [-1, 1]; 2", "on [-1, 1]; 2"), ("$x$", r"\$x\$")],
)
def test_markdown_text(text, escaped):
    assert markdown_text(text) == escaped


@pytest.fixture
def sizes(make_run):
    run = make_run(swept=("codebook_size",))
    for i, codes in enumerate((128, 256, 512, 1024)):
        run.seeds([0.03 - i / 1000, 0.0301 - i / 1000], [60 * 2**i, 61 * 2**i], codebook_size=codes)
    return run.done()


def test_our_sizes_stand_beside_the_papers(sizes):
    rows = [row for row in paper_table(load(sizes), 2).rows if row[1] != "95 % interval"]
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


def test_each_table_of_the_paper_where_its_field_is_swept(sizes, make_run):
    assert {"paper_table2", "paper_table3"} & set(all_tables(load(sizes))) == {"paper_table2"}
    text = next(path for path in write_tables(load(sizes)) if path.name == "paper_table2.md").read_text()
    assert "What sets them apart" in text
    assert "| codes K | 256, 512, 1024, 2048 | 128, 256, 512, 1024 |" in text


def test_of_many_alike_in_size_and_estimator_the_best_stands_there(make_run):
    run = make_run(swept=("codebook_size", "decay", "estimator"))
    for decay, mse in ((0.8, 0.021), (0.9, 0.020), (0.99, 0.03)):
        for estimator in ("ste", "rotation"):
            run.seeds([mse], [200], codebook_size=512, decay=decay, estimator=estimator)
    table = paper_table(load(run.done()), 2)
    ours = [row[1] for row in table.rows if row[0] == "medium (512)" and row[1] != "paper"]
    assert ours == ["ours: rotation, decay 0.9", "ours: ste, decay 0.9"]
    assert (
        table.notes[-1] == "of those alike in codebook_size and estimator the lowest mean MSE; 4 more are in results.md"
    )


def test_nothing_completed_leaves_the_papers_rows(make_run):
    run = make_run(swept=("codebook_size", "commitment_weight"))
    results = load(run.close())
    assert len(paper_table(results, 2).rows) == 10
    assert len(paper_table(results, 3).rows) == 10


def test_a_run_of_several_seeds_has_its_intervals_under_the_papers_rows(ablation, make_run):
    table = paper_table(load(ablation), 3)
    at = [row[:2] for row in table.rows].index(("0.25", "ours"))
    low, high = (float(end) for end in table.rows[at + 1][3].strip("[]").split(", "))
    assert table.rows[at + 1][:3] == ("", "95 % interval", "")
    assert low < 0.0217 < high
    assert any(note.startswith("95 % intervals over seeds") for note in table.notes)


def test_one_seed_has_no_interval_beside_the_paper(make_run):
    run = make_run()
    run.seeds([0.02], [200], commitment_weight=0.25)
    table = paper_table(load(run.done()), 3)
    assert "95 % interval" not in [row[1] for row in table.rows]
    assert not any("interval" in note for note in table.notes)


@pytest.mark.parametrize("name", ["configurations", "paper_table3"])
def test_csv_holds_plain_numbers(ablation, name):
    path = next(path for path in write_tables(load(ablation)) if path.name == f"{name}.csv")
    table = pyarrow.csv.read_csv(path)
    for metric in ("mse", "perplexity", "codebook_loss", "total"):
        for part in ("mean", "sd", "low", "high"):
            assert table.schema.field(f"{metric}_{part}").type == pa.float64()
    assert table.schema.field("n").type == pa.int64()
    group = load(ablation).groups[1]
    (ours,) = [
        row for row in table.to_pylist() if (row["configuration"], row.get("split", "test")) == ("beta 0.25", "test")
    ]
    assert (ours["commitment_weight"], ours["n"], ours["mse_mean"]) == (0.25, 3, group.mean("mse"))
    assert (ours["mse_low"], ours["mse_high"]) == load(ablation).estimate(group, "mse").interval()
    if name == "paper_table3":
        papers = [row for row in table.to_pylist() if row["whose"] == "paper"]
        assert [(row["split"], row["n"], row["mse_sd"]) for row in papers[::5]] == [
            ("test", 1, None),
            ("train", 1, None),
        ]


def test_csv_of_a_search_keeps_the_screening_seed_out_of_the_means(make_run):
    run = make_run(sampler="tpe")
    run.seeds([0.02, 0.021, 0.022], [300, 301, 302], commitment_weight=0.1)
    run.seeds([0.05], [100], commitment_weight=1.0)
    table = pyarrow.csv.read_csv(io.BytesIO(groups_table(load(run.done())).csv().encode())).to_pylist()
    assert [(row["n"], row["mse_mean"], row["mse_screening"]) for row in table] == [
        (2, pytest.approx(0.0215), 0.02),
        (0, None, 0.05),
    ]


HOSTILE = "a\\b{c}$d$ & #%_^~ <>|\"`' [*] ± – Éß 你 --x \\input{y} ?` ^^41\x00\x1b\n\u2028 \u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b 5 %", r"a\_b 5 \%"),
        ("0.02 ± 0.01", r"0.02 $\pm$ 0.01"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("$x$ ^~", r"\$x\$ \textasciicircum{}\textasciitilde{}"),
        ("[1] *", "{[}1] {*}"),
        ("--x\n你\x00", "-{-}x U+4F60U+0000"),
    ],
)
def test_latex_text(text, shown):
    assert latex_text(text) == shown


def test_latex_has_a_caption_a_label_the_numbers_and_the_notes(ablation):
    text = paper_table(load(ablation), 3).latex("tab:betas")
    assert r"\caption{Table 3 of the paper beside ours, test set}" in text
    assert r"\label{tab:betas}" in text
    assert r"0.25 & ours & 3 & 0.02170 $\pm$ 0.00034 &" in text
    assert r"totals are not comparable across beta\par" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


@pytest.mark.skipif(
    not shutil.which("pdflatex"),
    reason="pdflatex is not installed here (Debian: texlive-latex-base); what is escaped is tested without it",
)
def test_latex_compiles_whatever_the_names(ablation, tmp_path):
    cells = (HOSTILE, f"*{HOSTILE}"), (f"[{HOSTILE}", "[1]")
    hostile = [Table(HOSTILE, ("", "n"), cells, (HOSTILE,), left=left).latex(f"tab:{left}") for left in (1, 2)]
    own = [path.read_text() for path in write_tables(load(ablation)) if path.suffix == ".tex"]
    parts = [r"\documentclass{article}\usepackage{booktabs}\begin{document}", *hostile, *own, r"\end{document}"]
    (tmp_path / "all.tex").write_text("\n".join(parts))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_command_prints_every_table(ablation, capsys):
    main(str(ablation))
    printed = capsys.readouterr().out
    for title in ("Configurations", "The front", "Table 3 of the paper beside ours, test set", "What sets them apart"):
        assert title in printed
