"""What a process may take of a GPU."""

import pytest
import torch

from trainables.device import prepare_process, tensor_share
from trainables.job import CUDA_CONTEXT
from vqcore.config import problems_of

GB = 10**9


@pytest.mark.parametrize(("capacity", "trials"), [(141 * GB, 16), (24 * GB, 8), (16 * GB, 4), (8 * GB, 2)])
def test_the_tensors_and_contexts_of_all_that_share_a_gpu_fit_into_it(capacity: int, trials: int) -> None:
    share = tensor_share(1 / trials, capacity)
    assert trials * (share * capacity + CUDA_CONTEXT) == pytest.approx(capacity)


def test_a_whole_gpu_has_no_limit() -> None:
    assert tensor_share(1.0, 8 * GB) == tensor_share(2.0, 8 * GB) == 1.0


def test_a_share_that_cuda_alone_would_fill_is_refused() -> None:
    (problem,) = problems_of(lambda: tensor_share(0.0625, 8 * GB))
    assert problem == (
        "0.0625 GPU is 500 MB of its 8.0 GB, and CUDA alone takes some 805 MB of that in each process: "
        "fewer --trials-per-gpu"
    )


@pytest.mark.gpu
def test_on_a_gpu_a_process_takes_no_more_than_its_share_its_context_counted() -> None:
    _, total = torch.cuda.mem_get_info()
    share = 4 * CUDA_CONTEXT / total
    device = prepare_process(1.0, share)
    try:
        held = torch.empty(3 * CUDA_CONTEXT - 2**22, dtype=torch.uint8, device=device)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(2**24, dtype=torch.uint8, device=device)
        assert torch.cuda.memory_reserved() + CUDA_CONTEXT <= share * total
        del held
    finally:
        prepare_process(1.0, 1.0)
