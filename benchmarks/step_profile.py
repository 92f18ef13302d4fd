"""Where the time of a training step goes, by torch's profiler: what each part's own operators take on the CPU."""

from collections import Counter
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function

from vqcore.training import Images, Trainer

PARTS = {
    "batch making": "batch making",
    "quantizer": "quantizer",
    "tally": "tally",
    "_QuantizeBackward": "quantizer",
    "_GumbelSoftmaxBackward": "quantizer",
    "aten::convolution_backward": "convolution, backward",
    "aten::convolution": "convolution, forward",
    "Optimizer.": "optimiser",
}
"""A part by what the name of an operator, or of one that called it, contains."""
REST = "rest"


def parts_of_a_step(trainer: Trainer, images: Images) -> dict[str, float]:
    """Shares of an epoch's time; the first epoch, which warms, is not watched."""
    trainer.train_epoch(images)
    _name(images, "batch", "batch making")
    _name(trainer.model.quantizer, "forward", "quantizer")
    for method in ("update", "metrics", "check_finite"):
        _name(trainer.tally, method, "tally")
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        trainer.train_epoch(images)
    spent: Counter[str] = Counter()
    for event in watched.events() or ():
        spent[_part(event)] += event.self_cpu_time_total
    total = sum(spent.values())
    return {part: round(spent[part] / total, 4) for part in dict.fromkeys([*PARTS.values(), REST])}


def _part(event: Any) -> str:
    """Of the innermost operator that belongs to one."""
    while event is not None:
        for name, part in PARTS.items():
            if name in event.name:
                return part
        event = event.cpu_parent
    return REST


def _name(owner: object, method: str, part: str) -> None:
    """Show calls of a method to the profiler."""
    called = getattr(owner, method)

    def named(*args: Any, **kwargs: Any) -> Any:
        with record_function(part):
            return called(*args, **kwargs)

    setattr(owner, method, named)
