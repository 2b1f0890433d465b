"""The queue of a study: who claims a run makes it, kills lose nothing, and no run is made twice."""

import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path

import pytest
import queued
from queued import Meeting, Toy

from llm.__main__ import main
from llm.options.studies import BACKENDS
from llm.studies import archive, queue
from llm.studies.queue import OutOfTimeError, Queue
from zobench.run import claims, exit_status
from zobench.run.claims import Claims
from zobench.run.records import Run, rows_now

TESTS = Path(__file__).parent
ELSEWHERE = {"host": "elsewhere", "boot": "b", "processes": "p", "pid": 1, "started": "s"}


FORKS = get_context("forkserver")  # whose workers start at once: it imports torch only once
FORKS.set_forkserver_preload(["queued"])


def worker(target, *arguments):
    process = FORKS.Process(target=target, args=arguments)
    process.start()
    return process


def killed(workers, start, kills, lines, draw, most):
    """Kill workers and start others in their places, each time when 1 to `most` further lines are written, as often as
    there are such moments; then wait for all, and return how many kills there were.
    """
    done, deadline = 0, time.monotonic() + 900
    while done < kills and time.monotonic() < deadline:
        wanted = lines() + draw.randint(1, most)
        while lines() < wanted and any(worker.is_alive() for worker in workers) and time.monotonic() < deadline:
            time.sleep(0.005)
        if lines() < wanted:
            break  # the work is done
        place = draw.choice([place for place, worker in enumerate(workers) if worker.is_alive()] or [0])
        workers[place].kill()
        workers[place].join()
        workers[place] = start()
        done += 1
    for process in workers:
        process.join(900)
    assert [process.exitcode for process in workers] == [0] * len(workers)
    return done


def counted(folder, pattern):
    """A function that counts the lines of files that grow."""
    return lambda: sum(file.read_bytes().count(b"\n") for file in folder.glob(pattern))


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_behind(here, name, **owner):
    """The claim of a process that is gone without a word."""
    claim = here.claim(name, here.free(name))
    claim._over.set()
    claim.file.write_text(json.dumps({**claims._me(), **owner}))
    return claim


def test_a_claim_is_held_until_it_is_released_and_then_free_for_the_next_number(tmp_path):
    here = Claims(tmp_path)
    assert here.free("a run") == 1
    with here.claim("a run", 1) as claim:
        assert claim.held and here.free("a run") is None and here.claim("a run", 1) is None
        assert Claims(tmp_path).free("a run") is None and here.free("another") == 1
        assert here.any_held(but="another") and not here.any_held(but="a run")
    assert here.free("a run") == 2 and not here.any_held(but="rows")
    here.clear("a run")
    assert here.free("a run") == 1 and not list((tmp_path / claims.FOLDER).glob("*.part"))


def test_a_claim_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    here = Claims(tmp_path)
    left_behind(here, "run", pid=dead_process())
    assert here.free("run") == 2
    left_behind(here, "other", started="another process has the number now")
    assert here.free("other") == 2
    left_behind(here, "mine")
    assert here.free("mine") is None


def test_a_process_that_waits_to_be_reaped_is_dead(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    here = Claims(tmp_path)
    left_behind(here, "run", pid=process.pid, started=claims._started(process.pid))
    assert here.free("run") is None
    process.kill()
    deadline = time.monotonic() + 30
    while here.free("run") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert here.free("run") == 2
    process.communicate()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of the system call exit")
def test_a_process_that_has_lost_its_first_thread_alone_still_writes(tmp_path):
    """So dies a killed process: its first thread is a zombie, another one ends a write."""
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]
    code = f"""
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(300,)).start()
ctypes.CDLL(None).syscall({number}, 0)
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    started = claims._started(process.pid)
    state, deadline = Path(f"/proc/{process.pid}/stat"), time.monotonic() + 60
    while state.read_text().rpartition(")")[2].split()[0] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    here = Claims(tmp_path)
    left_behind(here, "run", pid=process.pid, started=started)
    assert here.free("run") is None
    process.kill()
    while here.free("run") is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert here.free("run") == 2
    process.wait()


def test_a_claim_of_another_machine_is_free_when_its_heartbeat_stood_still(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("zobench.run.claims.time.monotonic", lambda: now[0])
    here = Claims(tmp_path)
    file = left_behind(here, "run", **ELSEWHERE).file
    os.utime(file, (1, 1))  # whatever the clock of the other machine says
    assert here.free("run") is None
    now[0] = claims.STALE - 1
    assert here.free("run") is None
    os.utime(file, (2, 2))  # it lives
    now[0] = claims.STALE + 1
    assert here.free("run") is None
    now[0] = 2 * claims.STALE
    assert here.free("run") is None
    now[0] = 2 * claims.STALE + 1
    assert here.free("run") == 2 and Claims(tmp_path).free("run") is None  # one who looks first waits


def test_of_two_that_see_a_stale_claim_one_takes_over_and_a_late_one_does_not(tmp_path):
    first, second, late = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    left_behind(first, "run", pid=dead_process())
    numbers = [each.free("run") for each in (first, second, late)]
    assert numbers == [2, 2, 2]
    taken = first.claim("run", 2)
    assert taken is not None and second.claim("run", 2) is None
    taken.release()
    with second.claim("run", 3):
        pass  # which removes number 2
    third = first.claim("run", 4)
    assert late.claim("run", 2) is None and third.held  # though no file of that number was there
    third.release()


def test_who_removes_a_stale_claim_instead_lets_two_succeed(tmp_path):
    """The planted error: the usual way with one lock file."""
    lock = tmp_path / "lock"

    def take_over():
        lock.unlink()
        lock.open("x").close()
        return True

    lock.touch()
    seen_stale_by_both = True
    assert seen_stale_by_both and take_over() and take_over()


def test_a_process_that_stood_still_gives_up_its_run(tmp_path, monkeypatch):
    lost = []
    monkeypatch.setattr(claims, "HEARTBEAT", 0.01)
    monkeypatch.setattr(claims, "give_up", lost.append)
    here = Claims(tmp_path)
    claim = here.claim("run", 1)
    beat = claim.file.stat().st_mtime_ns
    deadline = time.monotonic() + 30
    while claim.file.stat().st_mtime_ns == beat and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claim.file.stat().st_mtime_ns > beat and not lost
    other = here.claim("run", 2)
    while claim not in lost and time.monotonic() < deadline:
        time.sleep(0.01)
    assert claim in lost and other not in lost
    claim.release(), other.release()


def test_rows_of_many_writers_are_all_there_and_a_torn_one_is_cut(tmp_path):
    Run.joined(tmp_path, {"command": "compare"})
    records = [Run.reopened(tmp_path) for _ in range(4)]
    threads = [
        threading.Thread(target=lambda record=record, k=k: [record.add({"k": k, "i": i}) for i in range(5)])
        for k, record in enumerate(records)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((row["k"], row["i"]) for row in rows_now(tmp_path)) == [(k, i) for k in range(4) for i in range(5)]
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write('{"torn')
    assert len(rows_now(tmp_path)) == 20
    records[0].add({"k": 9})
    assert rows_now(tmp_path)[20:] == [{"k": 9}] and len(records[0].rows) == 21


def test_a_command_with_other_options_does_not_join_those_that_have_begun(tmp_path):
    config = {"command": "compare", "seeds": 1}
    Run.joined(tmp_path, config)
    Run.joined(tmp_path, {**config, "seeds": 3})  # nobody works there yet
    with Claims(tmp_path).claim("run", 1), pytest.raises(ValueError, match="seeds: 3 there, 2 now"):
        Run.joined(tmp_path, {**config, "seeds": 2})


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 6))])
def test_three_workers_that_are_killed_make_each_run_once_and_never_two_at_a_time(seed, tmp_path):
    runs = 40

    def start():
        return worker(queued.main, tmp_path, runs)

    lines = counted(tmp_path, "*/journal")
    assert killed([start() for _ in range(3)], start, 9, lines, random.Random(seed), 8) == 9
    assert not (tmp_path / "overlaps").exists()
    made = (tmp_path / "made").read_text().split()
    assert len(made) == len(set(made)) >= runs - 9  # a kill may come between a run and what tells of it
    assert [int((tmp_path / f"{n}/sum").read_text()) for n in range(runs)] == [3 * n for n in range(runs)]
    assert [(tmp_path / f"{n}/journal").read_text().split() for n in range(runs)] == [
        ["0", str(n), str(2 * n)] for n in range(runs)
    ]
    assert not [path for path in (tmp_path / claims.FOLDER).iterdir() if "@" in path.name]


COMMANDS = {
    "compare": ["--plan", "PLAN"],
    "study": ["--methods", "mezo,adamw", "--forward-passes", "60", "--backward-passes", "20", "--rates", "1e-4,1e-3"],
    "tune": ["--steps", "20", "--trials", "6", "--together", "3", "--lr", "1e-5:1e-3"],
}
SMALL = ["--train", "20", "--dev", "10", "--test", "10", "--max-tokens", "24"]
PLAN = """
model = "tiny-opt"
tuned_on = "spam"
tuning_passes = 20
evaluations = 1
train = {batch = 4, train = 20, dev = 10, test = 10, max_tokens = 24, checkpoint_every = 5}
tasks.spam = {seeds = 3, forward_passes = 60}
arms.mezo = {method = "mezo", rates = [1e-4, 1e-3]}
arms.adamw = {method = "adamw", batch = 2, rates = [1e-3]}
"""
TIMES = ("seconds", "peak_mb", "steps_per_second", "date")


def results(folder):
    """The rows of a study and of its runs in any order, without times and without what a continued run tells more."""
    files = [folder / "rows.jsonl", *folder.glob("*/*/rows.jsonl")]
    kinds = ("arm-run", "chosen", "trial", "final", "step", "evaluation")
    return sorted(
        json.dumps([str(file.relative_to(folder)), {k: v for k, v in row.items() if k not in TIMES}], sort_keys=True)
        for file in files
        for row in rows_now(file.parent)
        if row["kind"] in kinds
    )


@pytest.mark.exhaustive
@pytest.mark.parametrize("command", COMMANDS)
def test_three_workers_of_a_command_that_are_killed_give_the_rows_of_one(command, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    words = [word.replace("PLAN", str(tmp_path / "plan.toml")) for word in COMMANDS[command]]
    argv = [command, "--quiet", *words, *(SMALL if command != "compare" else [])]

    def start(name="three"):
        return worker(queued.command, [*argv, "--out", str(tmp_path / name)])

    alone = start("one")
    alone.join()
    assert alone.exitcode == 0
    lines = counted(tmp_path / "three", "*/*/rows.jsonl")
    assert killed([start() for _ in range(3)], start, 6, lines, random.Random(0), 20) > 1
    assert results(tmp_path / "three") == results(tmp_path / "one")


@pytest.mark.exhaustive
def test_sigterm_to_a_command_ends_its_workers_and_packs(tmp_path):
    """A worker that outlives its command goes on computing, unseen."""
    (tmp_path / "plan.toml").write_text(PLAN.replace("passes = 20", "passes = 200000"))
    words = ["--plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--workers", "2", "--pack"]
    command = subprocess.Popen([sys.executable, "-m", "llm", "compare", "--quiet", *words], cwd=TESTS.parent)
    lines, deadline = counted(tmp_path / "out", "tune/*/rows.jsonl"), time.monotonic() + 900
    while len(list((tmp_path / "out").glob("tune/*/rows.jsonl"))) < 2 or lines() < 20:
        assert command.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    workers = children(command.pid)
    assert len(workers) >= 2
    command.terminate()
    assert command.wait(300) == exit_status.INTERRUPTED
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (tmp_path / "out" / archive.FILE).exists()


def children(pid):
    """The processes that a process has started, by /proc."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_worker_waits_for_the_runs_of_others_and_takes_those_that_they_give_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(queue, "POLL", 0.01)
    other = Claims(tmp_path).claim("toy/1", 1)
    jobs, told = [Toy(0, tmp_path), Toy(1, tmp_path)], []
    with pytest.raises(OutOfTimeError):
        Queue(tmp_path, until=time.time() + 0.3).finish(jobs, told.append)
    assert told == jobs[:1] and not jobs[1].folder.exists()
    assert "other workers make the 1 runs that are left" in capsys.readouterr().out
    other.release()
    Queue(tmp_path).finish(jobs, told.append)
    assert told == [jobs[0], *jobs] and (tmp_path / "made").read_text().split() == ["toy/0", "toy/1"]


def test_as_many_runs_are_made_at_once_as_there_are_workers(tmp_path):
    jobs, told = [Meeting(n, tmp_path) for n in range(2)], []
    Queue(tmp_path, workers=2).finish(jobs, told.append)
    assert sorted(job.number for job in told) == [0, 1]
    assert len({int((tmp_path / f"{n}/sum").read_text()) for n in range(2)} | {os.getpid()}) == 3


def test_a_run_that_ends_its_workers_is_told_and_not_repeated_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "engine", lambda name: lambda calls, workers, cluster: iter([None] * len(calls)))
    with pytest.raises(ChildProcessError, match="workers ended in toy/0 5 times without an error"):
        Queue(tmp_path, workers=2).finish([Toy(0, tmp_path)])


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--workers", "0"], "workers is 0: give 1 or more"),
        (["--backend", "dusk"], "unknown backend 'dusk'. Did you mean 'dask'"),
        (["--cluster", "tcp://there:8786"], "give it with --backend dask, submitit or ray"),
    ],
)
@pytest.mark.parametrize("command", ["study", "tune", "compare"])
def test_workers_that_there_are_not_are_refused_before_the_first_run(command, argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([command, *argv, "--out", str(tmp_path / "out")])
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_backend_that_is_not_installed_names_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match="--backend ray needs ray: pip install 'ray'"):
        queue.engine("ray")


@pytest.mark.parametrize(
    "backend", ["dask", *(pytest.param(name, marks=pytest.mark.exhaustive) for name in ("submitit", "ray"))]
)
def test_a_backend_makes_the_runs(backend, tmp_path, monkeypatch):
    pytest.importorskip(BACKENDS[backend], reason=f"{backend} is not installed")
    code = f"""
from pathlib import Path
from queued import Toy
from llm.studies.queue import Queue
if __name__ == "__main__":
    Queue(Path("study"), 2, {backend!r}).finish([Toy(n, Path("study")) for n in range(3)])
"""
    (tmp_path / "study").mkdir()
    (tmp_path / "call.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}"}
    subprocess.run([sys.executable, "call.py"], cwd=tmp_path, env=environment, check=True, timeout=300)
    assert sorted((tmp_path / "study/made").read_text().split()) == ["toy/0", "toy/1", "toy/2"]
    assert [(tmp_path / f"study/{n}/sum").read_text() for n in range(3)] == ["0", "3", "6"]
