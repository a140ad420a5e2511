"""Ask the reference and the engine the same cases, live, and compare: `make conformance`.

    python tests/conformance/conformance.py [PREFIX ...]     compare; a table, exit status 1 when anything differs
    python tests/conformance/conformance.py --record         write what the reference answers and logs to recorded/

After the cases come the whole nets (WholeNet/NAME) and the files that one writes and the other reads (Files/). Only
what begins with a PREFIX, if any is given; without one, the demo's net too is trained on both for twenty iterations
(dropout set to 0 in a copy, for it is drawn at random), where its LMDB has been built, and BVLC's own tests of pycaffe
run against the engine (bvlc_tests.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import bvlc_tests
import checks
import comparison
import live
import record_logs
import reference
import storage

HERE = Path(__file__).resolve().parent
CASES, DEMO = str(HERE / "run_cases.py"), str(HERE / "demo_net.py")
DEMO_NET, DEMO_DATA = "prototxt/fashion_mnist", "data/fashion_mnist/train_lmdb"
DEMO_TOLERANCE = 1e-3  # relative, of each loss


def ask_reference(out: Path, prefixes: list[str]) -> comparison.Answers:
    """The reference's answers to the cases. SystemExit naming the case when it stops or raises."""
    done = reference.run(["python3", CASES, str(out), *prefixes])
    if done.returncode:
        running = out / "running"
        case = running.read_text().strip() if running.is_file() else "none"
        raise SystemExit(f"conformance: the reference stopped (status {done.returncode}) in the case {case}")
    answers = storage.load(out)
    failed = [f"{case}: {said['error']}" for case, said in answers.items() if "error" in said]
    if failed:
        raise SystemExit("\n".join(["conformance: the reference raised; a case is wrong", *failed]))
    return answers


def ask_engine(out: Path, prefixes: list[str]) -> comparison.Answers:
    """The engine's answers to the cases; one that raised has the one value "error"."""
    done = subprocess.run([sys.executable, CASES, str(out), *prefixes], stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(f"conformance: the engine stopped (status {done.returncode}): run `python {CASES} OUT`")
    return storage.load(out)


def table(expected: comparison.Answers, found: comparison.Answers) -> tuple[list[str], list[str]]:
    """(the table's lines, one line for each difference). A row for each group: cases, passed, worst deviation."""
    rows: dict[str, list] = {}
    said = []
    for case in expected:
        worst, lines = comparison.differences(expected[case], found.get(case, {}))
        row = rows.setdefault(case.split("/")[0], [0, 0, 0.0])
        row[0] += 1
        row[1] += not lines
        row[2] = max(row[2], worst)
        said += [f"{case}: {line}" for line in lines]
    head = [f"{'':26}{'cases':>6}{'passed':>8}{'worst deviation':>18}"]
    total = f"{'all':26}{sum(r[0] for r in rows.values()):6}{sum(r[1] for r in rows.values()):8}"
    return head + [f"{k:26}{n:6}{ok:8}{worst:18.2g}" for k, (n, ok, worst) in rows.items()] + [total], said


def demo(folder: Path) -> tuple[list[str], list[str]]:
    """(lines to print, differences) of twenty iterations of the demo's net on both."""
    if not (reference.REPOSITORY / DEMO_DATA).is_dir():
        return [f"demo net: left out, there is no {DEMO_DATA}: run `make data` first"], []
    theirs, mine = folder / "reference.npz", folder / "engine.npz"
    command = [DEMO, DEMO_NET]
    for name, done in (
        ("reference", reference.run(["python3", *command, str(theirs)])),
        ("engine", subprocess.run([sys.executable, *command, str(mine)], cwd=reference.REPOSITORY, check=False)),
    ):
        if done.returncode:
            return [], [f"demo net: {name} stopped with status {done.returncode}"]
    lines, said = ["demo net, 20 iterations without dropout, from the same weights and data:"], []
    with np.load(theirs, allow_pickle=False) as expected, np.load(mine, allow_pickle=False) as found:
        for value in expected.files:
            if value.startswith("loss"):
                off = float(np.max(np.abs(found[value] - expected[value]) / np.abs(expected[value])))
                first, last = expected[value][[0, -1]]
                lines.append(f"  {value}: {first:.6f} to {last:.6f}, relative deviation {off:.2g}")
                if not off <= DEMO_TOLERANCE:
                    said.append(f"demo net: {value} deviates by {off:.2g}, more than {DEMO_TOLERANCE}")
        weights = [comparison.deviation(expected[v], found[v]) for v in expected.files if not v.startswith("loss")]
    return [*lines, f"  weights: worst deviation {max(weights):.2g} of a blob's largest value"], said


def record(answered: Path) -> int:
    for old in comparison.RECORDED.glob("*.npz"):
        old.unlink()
    for new in sorted(answered.glob("*.npz")):
        shutil.copyfile(new, comparison.RECORDED / new.name)
    print(f"recorded in {comparison.RECORDED}")
    return record_logs.main()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="*", help="only the cases whose name begins with one of these")
    parser.add_argument("--record", action="store_true", help="keep the reference's answers and logs in recorded/")
    arguments = parser.parse_args()
    reason = reference.missing()
    if reason:
        print(f"conformance: {reason}", file=sys.stderr)
        return 1
    if arguments.record and arguments.prefix:
        parser.error("--record records all cases: give no PREFIX")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ.setdefault("GLOG_log_dir", name)  # the commands' log files
        expected = ask_reference(folder / "reference", arguments.prefix)
        if arguments.record:
            return record(folder / "reference")
        found = ask_engine(folder / "engine", arguments.prefix)
        lines, said = table(expected, found)
        print("\n".join(lines))
        if not arguments.prefix:
            print(checks.summary(expected, found))
        recorded = storage.load(comparison.RECORDED)
        _, stale = table(expected, recorded)
        said += [f"recorded/ is not what the reference answers (--record): {line}" for line in stale]
        said += live.whole_nets(folder, arguments.prefix)
        if "Files/".startswith(tuple(arguments.prefix) or ("",)):
            said += live.files(folder)
        if not arguments.prefix:
            lines, differences = demo(folder)
            print("\n".join(lines))
            said += differences
            count, differences = bvlc_tests.failures()
            left_out = "" if bvlc_tests.has_dot() else "; test_draw left out: Graphviz's dot is not installed"
            print(f"BVLC's own tests of pycaffe: {count} run, {len(differences)} failed{left_out}")
            said += differences
    print("\n".join(said) or "no differences")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
