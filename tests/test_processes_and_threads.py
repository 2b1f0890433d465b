"""Steps in a forked process and from several threads."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

import zobench

FORKED = """
import hashlib, os, torch, zobench
torch.set_num_threads(2)
torch.manual_seed(0)
model = torch.nn.Linear(300_000, 1)
small = torch.randn(10)

def loss():
    return (model.weight[0, :10] * small).sum() ** 2

def step():
    optimizer.step(loss)
    return hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest()

optimizer = zobench.optim.ZerothOrder(model.parameters(), zobench.methods.make("mezo", epsilon=1e-3), lr=1e-3)
step()
child = os.fork()
text = f"{step()!r}\\n"
if not child:
    os.write(1, text.encode())
    os._exit(0)
os.waitpid(child, 0)
os.write(1, text.encode())
"""


@pytest.mark.skipif(not hasattr(sys.modules["os"], "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_step_after_a_fork_is_the_step_of_the_parent():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=Path(__file__).parents[1],
    )
    child, parent = done.stdout.splitlines()
    assert child == parent, done.stderr


def optimizer_of(model):
    return zobench.optim.ZerothOrder(model.parameters(), zobench.methods.make("mezo", epsilon=1e-3), lr=1e-3)


def test_a_second_thread_and_a_step_within_a_step_are_refused():
    model = torch.nn.Linear(3, 1)
    optimizer, told = optimizer_of(model), []

    def loss():
        return model(torch.ones(3)).pow(2).mean()

    def second():
        with pytest.raises(RuntimeError, match="an optimizer of its own, or take one step after the other"):
            optimizer.step(loss)
        told.append(True)

    def busy():
        for run in (second, lambda: (thread := threading.Thread(target=second)).start() or thread.join()):
            run()
        return loss()

    optimizer.step(busy)
    assert (
        len(told) == 2 * optimizer.evaluations + 4
    )  # each time the closure was called, and twice before the first step
    assert optimizer.state_dict()["state"]["zeroth_order"]["step"] == 1
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    optimizer.step(loss)
    assert optimizer.evaluations == 4


def test_two_threads_one_after_the_other_lose_no_step():
    model, lock = torch.nn.Linear(3, 1), threading.Lock()
    optimizer = optimizer_of(model)

    def steps():
        for _ in range(20):
            with lock:
                optimizer.step(lambda: model(torch.ones(3)).pow(2).mean())

    threads = [threading.Thread(target=steps) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert optimizer.evaluations == 80
