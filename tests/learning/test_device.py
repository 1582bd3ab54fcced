import scipy.optimize  # noqa: F401  (it brings a BLAS of its own)
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from radprobe.learning.device import threads


def blas():
    """How many threads each BLAS of this process has."""
    return {pool["filepath"]: pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_one_thread_is_one_of_torch_and_of_every_blas_and_then_all_is_as_before():
    with threadpool_limits(2, user_api="blas"):
        before, of_torch = blas(), torch.get_num_threads()
        with threads(1):
            assert torch.get_num_threads() == 1
            assert blas() == dict.fromkeys(before, 1)
        assert (blas(), torch.get_num_threads()) == (before, of_torch)
        assert set(before.values()) == {2}
