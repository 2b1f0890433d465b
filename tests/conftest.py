import os

import hypothesis
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # set before transformers is imported: no test waits for a hub

hypothesis.settings.register_profile("zobench", deadline=None, derandomize=True, database=None, max_examples=25)
hypothesis.settings.load_profile("zobench")


def pytest_addoption(parser):
    parser.addoption("--exhaustive", action="store_true", help="only what is marked so, which is else left out")


def pytest_collection_modifyitems(config, items):
    chosen, left_out = [], []
    for item in items:
        marked = item.get_closest_marker("exhaustive") is not None
        (chosen if marked == config.getoption("--exhaustive") else left_out).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="module")
def one_thread():
    """For thousands of small operations: waking a second thread for each costs more than it brings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
