"""What the columns of the results are called, and what they are measured in."""

UNITS = {
    "mse": "mean squared error on [-1, 1]",
    "perplexity": "codes: exp of the entropy of code use, from one histogram over the whole set",
    "usage": "share of the codes used at least once",
    "bits": "bits an image: log2 of perplexity times codes an image",
    "loss": "total training objective on [-1, 1]; not comparable across commitment_weight",
    "codebook_loss": "unweighted mean squared distance of encoder outputs to their codes",
    "commitment_loss": "unweighted mean squared distance of encoder outputs to their codes",
}
"""What the metrics are measured in; each on the whole test set, and with ``train_`` before its name while training."""

REPORTED = (*UNITS, *(f"train_{name}" for name in UNITS), "seconds")
"""The columns that each epoch of a trial reports."""

_NAMES = {"mse": "MSE", "bits": "rate", "codebook_loss": "codebook loss", "commitment_loss": "commitment loss"}


def named(column: str) -> str:
    """A column as people say it: ``MSE``, ``training MSE``."""
    if column.startswith("train_"):
        return f"training {named(column.removeprefix('train_'))}"
    return _NAMES.get(column, column)


def least(column: str) -> float:
    """The smallest value that a column can have."""
    return 1.0 if column.endswith("perplexity") else 0.0


def measured(column: str) -> str:
    """A column's name, unit and set of images, for an axis or a sentence."""
    twin = column.removeprefix("train_")
    where = "whole test set" if twin == column else "training set"
    if twin == "mse":
        return f"{named(column)} on [-1, 1], {where}"
    if twin == "bits":
        return f"{named(column)}, bits an image under an ideal entropy coder, {where}"
    unit = "" if twin == "perplexity" else UNITS.get(twin, "")
    return f"{named(column)}{unit and f': {unit}'}, {where}"
