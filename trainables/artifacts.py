"""What of a run folder MLflow gets as artifacts of the sweep."""

from pathlib import Path

ARTIFACTS = ("sweep.toml", "results.parquet", "figures/*.png", "tables/*.md", "exports/*.toml")
"""What of the run folder goes to the parent run. Checkpoints stay where they are."""


def artifacts(folder: Path) -> list[Path]:
    """The files of a run that are sent. What is a link, or behind one, is none of them: it may lead anywhere."""
    found = [file for pattern in ARTIFACTS for file in sorted(folder.glob(pattern))]
    return [file for file in found if file.is_file() and file.resolve() == folder.resolve() / file.relative_to(folder)]
