import os

import hypothesis
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # set before transformers is imported: no test waits for a hub

hypothesis.settings.register_profile("zobench", deadline=None, derandomize=True, database=None, max_examples=25)
hypothesis.settings.load_profile("zobench")


@pytest.fixture(scope="module")
def one_thread():
    """For thousands of small operations: waking a second thread for each costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
