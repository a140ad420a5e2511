"""Ask the reference and the engine the same cases, live, and compare: `make conformance`.

    python tests/conformance/conformance.py [PREFIX ...]     compare; a table, exit status 1 when anything differs
    python tests/conformance/conformance.py --record         also write the reference's answers to recorded/

Only the cases whose name begins with a PREFIX, if any is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import comparison
import reference
import storage

HERE = Path(__file__).resolve().parent
SCRIPT = str(HERE / "run_cases.py")


def ask_reference(out: Path, prefixes: list[str]) -> None:
    done = reference.run(["python3", SCRIPT, str(out), *prefixes])
    if done.returncode:
        running = out / "running"
        case = running.read_text().strip() if running.is_file() else "none"
        raise SystemExit(f"conformance: the reference stopped (status {done.returncode}) in the case {case}")
    failed = [f"{case}: {said['error']}" for case, said in storage.load(out).items() if "error" in said]
    if failed:
        raise SystemExit("\n".join(["conformance: the reference raised; a case is wrong", *failed]))


def ask_engine(out: Path, prefixes: list[str]) -> None:
    done = subprocess.run([sys.executable, SCRIPT, str(out), *prefixes], stderr=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(
            f"conformance: the engine stopped (status {done.returncode}); see `{sys.executable} {SCRIPT} OUT`"
        )


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prefix", nargs="*", help="only the cases whose name begins with one of these")
    parser.add_argument("--record", action="store_true", help="keep the reference's answers in recorded/")
    arguments = parser.parse_args()
    reason = reference.missing()
    if reason:
        print(f"conformance: {reason}", file=sys.stderr)
        return 1
    if arguments.record and arguments.prefix:
        parser.error("--record records all cases: give no PREFIX")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        theirs, mine = Path(name) / "reference", Path(name) / "engine"
        ask_reference(theirs, arguments.prefix)
        if arguments.record:
            for old in comparison.RECORDED.glob("*.npz"):
                old.unlink()
            for new in sorted(theirs.glob("*.npz")):
                shutil.copyfile(new, comparison.RECORDED / new.name)
            print(f"recorded in {comparison.RECORDED}")
        ask_engine(mine, arguments.prefix)
        lines, said = table(storage.load(theirs), storage.load(mine))
    print("\n".join(lines + said))
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
