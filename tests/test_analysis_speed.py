"""analysis of the bench and the profile: what is pooled, what tables and sentences say, on small fabricated rows."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from analysis import machines, speeds
from analysis.__main__ import main
from analysis.figures.scaling import scaling_figure, slice_of
from analysis.figures.speed import speed_figure
from analysis.rows import ReadError, Results, read
from analysis.sections import profile, rounding, speed
from analysis.tables import speed as tables
from analysis.tables.profile import profile_table
from analysis.tables.rounding import rounding_table

pytestmark = pytest.mark.environment

Row = dict[str, Any]
HERE = {"cpu": "Xeon", "cores": 2, "torch": "2.13.0", "commit": "aaa"}
THERE = {"cpu": "EPYC", "gpu": "H100", "cores": 16, "torch": "2.13.0", "commit": "aaa"}
PAIRED = "in-forward, paired, deferred"
PLACE = {"size": "opt-125m", "dtype": "float32", "batch": 16, "tokens": 48, "threads": 2}


def folder(path: Path, rows: list[Row], environment: Row = HERE, **config: object) -> Path:
    """A run folder with these rows, measured on a machine of this environment."""
    path.mkdir(parents=True)
    (path / "config.toml").write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in config.items()))
    (path / "environment.json").write_text(json.dumps(environment))
    (path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def step_row(job: str, seconds: list[float], **more: Any) -> Row:
    row: Row = {"kind": "bench-step", **PLACE, "job": job, "law": None, "engine": None, "rows": None}
    return row | {"seconds": seconds, "of_limit": seconds[1] / 2.0, "speedup": 12.0 / seconds[1]} | more


def step_rows(times: float = 1.0) -> list[Row]:
    """Published 12 s, the limit 2 s, Gaussian 2.5 s (both bars hold), Rademacher 2.4 s (both missed)."""
    own = {"engine": PAIRED, "rows": "touched"}
    gaussian = {"law": "gaussian", "bar": 1.3, "bar_speedup": 4.0, **own}
    rademacher = {"law": "rademacher", "bar": 1.1, "bar_speedup": 5.5, **own}
    rows = [
        step_row(f"{PAIRED}, gaussian, touched rows", [2.4, 2.5, 2.7], **gaussian),
        step_row("published", [11.0, 12.0, 14.0], bar=None, bar_speedup=None),
        step_row("limit", [1.9, 2.0, 2.2], bar=None, bar_speedup=None),
        step_row(f"{PAIRED}, rademacher, touched rows", [2.3, 2.4, 2.6], **rademacher),
    ]
    return [row | {"seconds": [times * value for value in row["seconds"]]} for row in rows]


def memory_rows() -> list[Row]:
    base = {"kind": "bench-memory", "size": "opt-125m", "dtype": "float32", "model_mb": 500.9, "largest_mb": 154.4}
    jobs = (("inference", 800.0, None), ("plain", 1200.0, False), (PAIRED, 824.0, True))
    return [
        base | {"job": job, "peak_mb": peak, "of_inference": peak / 800, "limit_mb": 994.4, "held": held}
        for job, peak, held in jobs
    ]


def sweep_rows() -> list[Row]:
    base = {"kind": "bench-sweep", "law": "gaussian", "copied_per_second": 4e9}
    speeds_ = (("native", 4e8), ("eager", 1e8))
    return [base | {"path": path, "numbers_per_second": n, "of_copy": n / 4e9} for path, n in speeds_]


def adapter_rows() -> list[Row]:
    base = {"kind": "bench-adapter", "size": "opt-125m", "trainable": 294912, "bar": 1.05, "limit_seconds": [2.0] * 3}
    ratios = (("lora", 1.03), ("prefix", 1.08))
    return [base | {"adapter": name, "of_limit": ratio, "seconds": [2 * ratio] * 3} for name, ratio in ratios]


def scaling_rows() -> list[Row]:
    """Three lengths at batch 4, and batch 1 at one of them; a step takes 2.5 forwards."""
    rows: list[Row] = []
    for size, parameters in (("opt-10m", 1e7), ("opt-1m", 1e6)):
        for batch, tokens in ((4, 32), (4, 64), (4, 128), (1, 64)):
            base = {"kind": "bench-scaling", "size": size, "parameters": parameters, "batch": batch, "tokens": tokens}
            forward = 1e-9 * parameters * batch * tokens
            rows += [base | {"job": "forward", "seconds": [forward] * 3}]
            rows += [base | {"job": "step", "seconds": [2.5 * forward] * 3}]
    return rows


def fit_rows() -> list[Row]:
    exponents = {"tokens_exponent": 0.98, "batch_exponent": 0.99, "residual": 0.11}
    base = {"kind": "bench-scaling-fit", **exponents}
    return [base | {"job": job, "parameters_exponent": a} for job, a in (("forward", 0.93), ("step", 0.91))]


def profile_rows() -> list[Row]:
    """Parts in no order, a step of 2 s plain and of 1.5 s in the forward."""
    place = {name: value for name, value in PLACE.items() if name != "threads"}
    rows = []
    for engine, draw in (("plain", 0.8), ("in-forward", 0.3)):
        base = {"kind": "profile", **place, "engine": engine, "law": "gaussian", "rows": "touched"}
        parts = {"MLP": 0.6, "Python and the rest": 0.1, "draw": draw, "attention": 0.3, "apply": 0.2}
        rows += [base | {"part": part, "seconds": seconds, "share": 0.0} for part, seconds in parts.items()]
    return rows


def motion_rows(lr: float = 1e-6) -> list[Row]:
    base = {"kind": "motion", "model": "smollm2", "dtype": "bfloat16", "lr": lr}
    ways = (("plain", "nearest", 0.02, 0.14), ("in-forward", "stochastic", 0.3, 0.6))
    return [
        base | {"engine": engine, "rounding": way, "moved": moved + step / 1000, "cosine": cosine, "length": 0.9}
        | {"step": step}
        for engine, way, moved, cosine in ways
        for step in (0, 10, 20)
    ]  # fmt: skip


def results(tmp_path: Path, rows: list[Row], **config: object) -> Results:
    return read([folder(tmp_path / "run", rows, **config)])


# steps


def test_steps_are_told_with_ratios_and_bars(tmp_path: Path) -> None:
    found = results(tmp_path, step_rows())
    frame = tables.steps_table(speeds.steps(found)).frame.set_index("job")
    assert [name.split(", ")[-2] if "," in name else name for name in frame.index] == [
        *("published", "gaussian", "rademacher", "limit"),
    ]
    gaussian, rademacher = frame.loc[f"{PAIRED}, gaussian, touched rows"], frame.iloc[2]
    assert gaussian[["s a step", "quartiles", "of the limit"]].tolist() == ["2.5", "2.45 to 2.6", "1.250"]
    assert gaussian[["allowed", "demanded"]].tolist() == ["≤ 1.3: held", "≥ 4: held"]
    assert rademacher[["allowed", "demanded"]].tolist() == ["≤ 1.1: missed", "≥ 5.5: missed"]
    assert rademacher["times faster than published"] == "5.00"
    assert frame.loc["published", ["of the limit", "allowed", "repetitions"]].tolist() == ["6.000", "", "3"]
    assert not {"machine", "setting", "between calls", "than published in float32"} & set(frame.columns)
    sentences = speed.section(found).sentences
    assert sentences[0] == "Measured on Xeon, 2 cores, torch 2.13.0."
    assert "two bare forwards take 2 s; the published loop takes 12 s, 6.00 times the limit" in sentences[1]
    assert "takes 2.5 s, 1.25 times the limit, 4.80 times faster than the published loop" in sentences[1]
    assert sentences[2].startswith("2 of 4 bars on the time of a step hold; missed:")
    assert "(at most 1.1 of the limit; it is 1.200)" in sentences[2]
    assert "(at least 5.5 times faster; it is 5.000)" in sentences[2]


def test_a_bar_that_is_met_exactly_holds_and_one_missed_by_little_does_not(tmp_path: Path) -> None:
    rows = step_rows()
    rows[0] |= {"of_limit": 1.3, "speedup": 4.0}
    rows[3] |= {"of_limit": 1.1001, "speedup": 5.4999}
    verdicts = speeds.verdicts(speeds.steps(results(tmp_path, rows)))
    assert [held for _, _, held in verdicts] == [True, True, False, False]


def test_runs_of_one_machine_and_configuration_are_pooled(tmp_path: Path) -> None:
    folder(tmp_path / "one", step_rows(), repetitions=3, out="one", candidates=2)
    again = [row | {"of_limit": row["of_limit"] * 1.2} for row in step_rows(2.0)]
    folder(tmp_path / "two", again, HERE | {"commit": "bbb"}, repetitions=3, out="two", candidates=2)
    found = read([tmp_path])
    frame = tables.steps_table(speeds.steps(found)).frame.set_index("job")
    gaussian = frame.loc[f"{PAIRED}, gaussian, touched rows"]
    assert gaussian["s a step"] == "3.75"  # of 2.4, 2.5, 2.7, 4.8, 5.0, 5.4
    assert gaussian["repetitions"] == "6"
    assert gaussian[["of the limit", "between calls", "allowed"]].tolist() == [
        *("1.375", "1.250 to 1.500", "≤ 1.3: missed"),
    ]
    assert gaussian["calls"] == "2 of 2 commits"
    assert not {"machine", "setting"} & set(frame.columns)


@pytest.mark.parametrize("change", ["cpu", "gpu", "cores", "torch"])
def test_another_machine_is_never_pooled(tmp_path: Path, change: str) -> None:
    folder(tmp_path / "one", step_rows())
    folder(tmp_path / "two", step_rows(2.0), HERE | {change: THERE[change] if change != "torch" else "2.14.0"})
    found = read([tmp_path])
    steps = speeds.steps(found)
    assert steps.groupby("machine").size().to_dict() == {"A": 4, "B": 4}
    limits = steps[steps["job"] == "limit"].set_index("machine")["seconds"]
    assert limits.to_dict() == {"A": 2.0, "B": 4.0}
    sentences = speed.section(found).sentences
    assert sentences[0].startswith("Machine A: Xeon, 2 cores, torch 2.13.0; Machine B: ")
    assert "2 threads, machine B: two bare forwards take 4 s" in sentences[2]
    assert len(speed_figure(steps).axes) == 2


def test_a_folder_continued_on_another_machine_is_split_where_it_was(tmp_path: Path) -> None:
    rows = [*step_rows(), {"kind": "environment", **THERE}, *step_rows(0.1)]
    limits = speeds.steps(results(tmp_path, rows)).query("job == 'limit'")
    assert limits["machine"].tolist() == ["A", "B"]
    assert limits["seconds"].tolist() == pytest.approx([2.0, 0.2])


def test_a_setting_that_rows_do_not_carry_splits_and_a_selection_does_not(tmp_path: Path) -> None:
    folder(tmp_path / "one", step_rows(), candidates=2, laws=["gaussian"], repetitions=7)
    folder(tmp_path / "two", step_rows(), candidates=2, laws=["gaussian", "rademacher"], repetitions=9)
    assert set(machines.placed("bench-step", read([tmp_path]))["setting"]) == {""}
    folder(tmp_path / "three", step_rows(), candidates=4, laws=["gaussian"], repetitions=7)
    steps = speeds.steps(read([tmp_path]))
    assert steps.query("job == 'limit'").set_index("setting")["calls"].to_dict() == {
        **{"candidates 2": 2, "candidates 4": 1},
    }


def test_bfloat16_is_held_against_the_published_loop_in_float32_too(tmp_path: Path) -> None:
    short = [row | {"dtype": "bfloat16"} for row in step_rows(0.5)]
    alone = speeds.steps(read([folder(tmp_path / "alone", short)]))
    assert alone["of_full"].isna().all()
    frame = speeds.steps(read([folder(tmp_path / "both", step_rows() + short)]))
    assert frame.loc[frame["dtype"] == "float32", "of_full"].isna().all()
    found = frame[(frame["dtype"] == "bfloat16") & (frame["law"] == "gaussian")].iloc[0]
    assert found["of_full"] == pytest.approx(12.0 / 1.25)
    folder(tmp_path / "apart" / "one", step_rows())
    folder(tmp_path / "apart" / "two", short, THERE)
    assert speeds.steps(read([tmp_path / "apart"]))["of_full"].isna().all()


def test_seconds_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    rows = [step_rows()[0] | {"seconds": ["quick"]}]
    with pytest.raises(ReadError, match=r"run 'run': a row has 'seconds' = \['quick'\], not a list of numbers"):
        speeds.steps(results(tmp_path, rows))


# memory, sweeps, adapters


def test_memory_sweeps_and_adapters_are_told(tmp_path: Path) -> None:
    found = results(tmp_path, memory_rows() + sweep_rows() + adapter_rows())
    memory = tables.memory_table(speeds.memory(found)).frame.set_index("job")
    assert memory["peak, MB"].tolist() == ["800", "1,200", "824"]
    assert memory["of inference"].tolist() == ["1.000", "1.500", "1.030"]
    assert memory["below it"].tolist() == ["", "missed", "held"]
    sweeps = tables.sweeps_table(speeds.sweeps(found)).frame
    assert sweeps[["path", "drawn and applied, 10⁹/s", "of the copy"]].to_numpy().tolist() == [
        *(["native", "0.4", "0.100"], ["eager", "0.1", "0.025"]),
    ]
    adapters = tables.adapters_table(speeds.adapters(found)).frame.set_index("adapter")
    assert adapters["allowed"].tolist() == ["≤ 1.05: held", "≤ 1.05: missed"]
    assert adapters.loc["lora", ["trainable", "s a step", "two forwards, s"]].tolist() == ["294,912", "2.06", "2"]
    section = speed.section(found)
    assert section.illustrations == []
    assert [table.caption for table in section.tables] == [
        *("Peak memory of one step", "Sweep speed", "LoRA and prefix tuning"),
    ]
    assert "1 of 2 steps stay below the memory allowed; the largest peak is 1.500 of that of" in section.sentences[1]
    assert "native path: gaussian 0.4·10⁹ a second (0.10 of a copy)" in section.sentences[2]
    assert "1 of 2 bars on the time of an adapter's step holds; missed: prefix" in section.sentences[4]


def test_memory_of_several_calls_is_held_in_a_share_of_them(tmp_path: Path) -> None:
    worse = [row | {"peak_mb": 1100.0, "held": False} for row in memory_rows() if row["job"] == PAIRED]
    frame = tables.memory_table(speeds.memory(results(tmp_path, memory_rows() + worse))).frame.set_index("job")
    assert frame.loc[PAIRED, ["peak, MB", "below it", "calls"]].tolist() == ["962", "held in 50 % of calls", "2"]


# growth


def test_growth_is_drawn_over_what_varies_and_told_with_its_exponents(tmp_path: Path) -> None:
    found = results(tmp_path, scaling_rows() + fit_rows())
    points = speeds.scaling(found)
    assert set(slice_of(points, "tokens")["batch"]) == {4.0}
    assert set(slice_of(points, "batch")["tokens"]) == {64.0}
    axes = scaling_figure(points).axes
    assert [panel.get_xlabel() for panel in axes if panel.axison] == [
        *("tokens of a prompt", "examples a step", "parameters of the model"),
    ]
    lines = [line for line in axes[0].lines if line.get_linestyle() != "None" and len(line.get_xdata()) == 3]
    assert len(lines) == 4
    dashed = [line for line in lines if line.get_linestyle() == "--"]
    assert sorted(line.get_ydata()[0] for line in dashed) == pytest.approx([0.128, 1.28])
    solid = [line for line in lines if line.get_linestyle() == "-"]
    assert sorted(line.get_ydata()[0] for line in solid) == pytest.approx([0.32, 3.2])
    table = tables.scaling_table(points).frame
    assert len(table) == 8
    assert set(table["step / forward"]) == {"2.500"}
    assert table["size"].tolist() == ["opt-1m"] * 4 + ["opt-10m"] * 4
    fits = tables.fits_table(speeds.fits(found)).frame.set_index("job")
    assert fits.loc["step"].tolist() == ["0.910", "0.980", "0.990", "0.110"]
    assert fits.loc["forward", "parameters"] == "0.930"
    assert "of a step as parameters^0.91, tokens^0.98, batch^0.99" in speed.section(found).sentences[-1]


def test_only_tokens_are_drawn_where_nothing_else_varies(tmp_path: Path) -> None:
    rows = [row for row in scaling_rows() if row["size"] == "opt-1m" and row["batch"] == 4]
    assert len(scaling_figure(speeds.scaling(results(tmp_path, rows))).axes) == 1


# profile


def test_parts_are_in_order_and_add_up(tmp_path: Path) -> None:
    found = results(tmp_path, profile_rows())
    parts = speeds.profiles(found)
    order = ["draw", "apply", "attention", "MLP", "Python and the rest"]
    assert parts["part"].tolist() == 2 * order
    assert parts.groupby("name")["share"].sum().tolist() == pytest.approx([1.0, 1.0])
    frame = profile_table(parts).frame.set_index("configuration")
    plain = frame.loc["plain, gaussian, touched rows"]
    assert plain[["step, s", "draw", "MLP"]].tolist() == ["2", "0.8 (40.0 %)", "0.6 (30.0 %)"]
    assert frame.columns.tolist()[2:-1] == order
    section = profile.section(found)
    assert section.sentences[1] == (
        "opt-125m, float32, batch 16 × 48 tokens: of the 2 s of plain, gaussian, touched rows, draw takes most, "
        "40.0 %, draw and apply 50.0 %; of the 1.5 s of in-forward, gaussian, touched rows, MLP takes most, 40.0 %, "
        "draw and apply 33.3 %."
    )
    (bars,) = section.illustrations[0].figure.axes
    widths = [bar.get_width() for bar in bars.patches]
    assert sum(widths[:5]) == pytest.approx(100.0)
    assert [bar.get_x() for bar in bars.patches[:3]] == pytest.approx([0.0, 40.0, 50.0])


def test_a_profile_slower_than_the_bench_is_told_and_marked(tmp_path: Path) -> None:
    alone = profile.section(results(tmp_path, profile_rows()))
    assert not any("bench" in sentence for sentence in alone.sentences)
    base = {"kind": "bench-step", **PLACE, "law": "gaussian", "rows": "touched", "of_limit": 1.0, "speedup": 1.0}
    bench = [
        base | {"job": engine, "engine": engine, "seconds": [seconds] * 3}
        for engine, seconds in (("plain", 1.9), ("in-forward", 0.5))  # 2 and 1.5 s in the profile
    ]
    section = profile.section(read([folder(tmp_path / "both", profile_rows() + bench)]))
    assert "in-forward, gaussian, touched rows (3.0 times). Compare their shares" in section.sentences[-1]
    notes = [text.get_text() for text in section.illustrations[0].figure.axes[0].texts]
    assert [note for note in notes if "bench" in note] == [" 1.5 s a step, 3.0 times the bench"]


# rounding


def test_what_rounding_leaves_is_told_by_rounding_and_engine(tmp_path: Path) -> None:
    found = results(tmp_path, motion_rows())
    frame = rounding_table(speeds.motion(found)).frame.set_index("rounding")
    columns = ["rate", "engine", "steps", "measured", "moved", "cosine", "moved, last"]
    assert frame.loc["nearest", columns].tolist() == ["1e-06", "plain", "0 to 20", "3", "0.03", "0.14", "0.04"]
    assert frame.loc["stochastic", columns[4:]].tolist() == ["0.31", "0.6", "0.32"]
    section = rounding.section(found)
    assert "nearest: 3 % of the weights move, cosine 0.140" in section.sentences[1]
    assert len(section.illustrations[0].figure.axes) == 2


def test_a_rounding_is_named_with_its_engine_only_where_it_has_several(tmp_path: Path) -> None:
    twice = motion_rows() + [row | {"engine": "in-forward"} for row in motion_rows() if row["rounding"] == "nearest"]
    names = speeds.motion(results(tmp_path, twice))["name"]
    assert set(names) == {"nearest, plain", "nearest, in-forward", "stochastic"}


def test_rates_are_shown_apart_and_a_schedule_is_one(tmp_path: Path) -> None:
    two = speeds.motion(results(tmp_path, motion_rows() + motion_rows(1e-5)))
    assert two.groupby("place")["rate"].first().tolist() == ["1e-06", "1e-05"]
    falling = [row | {"lr": 1e-6 / (1 + row["step"])} for row in motion_rows()]
    scheduled = speeds.motion(read([folder(tmp_path / "falling", falling)]))
    assert set(scheduled["rate"]) == {"schedule"}
    assert scheduled["place"].nunique() == 1


def test_seeds_are_pooled_to_their_median(tmp_path: Path) -> None:
    for seed, cosine in enumerate((0.1, 0.2, 0.9)):
        rows = [row | {"cosine": cosine} for row in motion_rows() if row["rounding"] == "nearest"]
        folder(tmp_path / f"seed-{seed}", rows, seed=seed)
    motion = speeds.motion(read([tmp_path]))
    assert motion["cosine"].tolist() == [0.2, 0.2, 0.2]
    assert motion["name"].tolist() == ["nearest"] * 3


# the page


def report(folders: list[Path], out: Path) -> str:
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    return out.read_text(encoding="utf-8")


def test_the_page_has_the_sections_of_speed_and_is_the_same_twice(tmp_path: Path) -> None:
    folder(tmp_path / "runs" / "bench", step_rows() + memory_rows() + scaling_rows() + fit_rows())
    folder(tmp_path / "runs" / "profile", profile_rows() + motion_rows())
    page = report([tmp_path / "runs"], tmp_path / "one" / "report.html")
    for key, figures in (("speed", 2), ("profile", 1), ("rounding", 1)):
        section = re.search(rf'<section id="{key}">.*?</section>', page, re.DOTALL)
        assert section
        assert 'class="missing"' not in section[0]
        assert section[0].count("<img") == figures
    assert "unknown to this report" not in page
    names = sorted(file.relative_to(tmp_path / "one") for file in (tmp_path / "one").rglob("*.*"))
    assert {name.stem for name in names} == {"report", "speed", "scaling", "profile", "rounding"}
    report([tmp_path / "runs" / "profile"], tmp_path / "two" / "report.html")
    for name in (name for name in names if name.stem in ("profile", "rounding")):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_parts_without_rows_are_absent(tmp_path: Path) -> None:
    only = speed.section(results(tmp_path, [row for row in step_rows() if row["law"]]))
    assert [shown.stem for shown in only.illustrations] == ["speed"]
    assert [table.caption for table in only.tables] == ["Time of one step"]
    assert not any("bare forwards take" in sentence or "memory" in sentence for sentence in only.sentences)
    limit = speed.section(read([folder(tmp_path / "limit", step_rows()[2:3])]))
    assert limit.illustrations == []
    empty = speed.section(read([folder(tmp_path / "empty", [step_rows()[0] | {"seconds": []}])]))
    assert empty.illustrations == []
    none = speed.section(read([folder(tmp_path / "none", motion_rows())]))
    assert "python -m llm bench" in none.missing
    assert none.tables == []
    assert "python -m llm profile" in profile.section(results(tmp_path / "bench", step_rows())).missing


def test_null_ratios_leave_dashes_and_no_verdict(tmp_path: Path) -> None:
    rows = [step_rows()[0] | {"of_limit": None, "speedup": None}]
    found = results(tmp_path, rows)
    frame = tables.steps_table(speeds.steps(found)).frame
    assert "of the limit" not in frame.columns
    assert "allowed" not in frame.columns
    assert math.isnan(speeds.steps(found)["of_limit"].iloc[0])
    assert not any("bar" in sentence for sentence in speed.section(found).sentences)
