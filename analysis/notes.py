"""Notes that several tables need, so as not to mislead."""

from analysis.results import Results

SIMULTANEOUS = "all of them hold at once with 95 %, so that of whichever is picked does"
NO_TOTAL = "total = MSE + (1 + beta) codebook: it holds beta itself, so totals are not comparable across beta"
RATES_NOTE = (
    "uniform: log2 K a code; entropy: of the test set's own codes, a bound and no code; unigram code: it knows the "
    "training set's frequencies of the codes, and nothing else"
)
LEARNED_NOTE = "learned prior: a small causal one, trained on the training set's codes after the last epoch"


def screened_note(results: Results) -> tuple[str, ...]:
    """What the parentheses mean, if there are any."""
    if results.screening is None or len(results.estimated) == len(results.groups):
        return ()
    return (f"in parentheses: by seed {results.screening}, which screened: an order, in no mean or star",)
