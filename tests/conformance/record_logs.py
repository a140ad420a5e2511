"""Record what BVLC's `caffe` command says into recorded/logs/: one file a command, its text, its exit status.

    python tests/conformance/record_logs.py

A file's first line is the command, then what it wrote (stdout's lines, if any, after a line `--- stdout`), and last
its exit status as a shell shows it. Times and process numbers are left as they were; the addresses of a failed check's
stack, and the data layer's restarts in the runs stopped by a signal, are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import reference
from logs import COMMANDS, FILES, LOGS

HERE = Path(__file__).resolve().parent


def main() -> int:
    reason = reference.missing()
    if reason:
        print(f"record_logs.py: {reason}", file=sys.stderr)
        return 1
    LOGS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        reference.run(["python3", str(HERE / "fixtures.py"), "data"], cwd=folder).check_returncode()
        for file, text in FILES.items():
            (folder / file).write_text(text)
        for log, command in COMMANDS.items():
            done = reference.run(
                command.split(),
                cwd=folder,
                env={"GLOG_log_dir": str(folder), "GLOG_logtostderr": "0", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            status = done.returncode if done.returncode >= 0 else 128 - done.returncode
            out = f"--- stdout\n{done.stdout.strip()}\n" if done.stdout.strip() else ""
            said = re.sub(r"(?m)^    @ .*\n?", "", done.stderr).rstrip()
            if "long.prototxt" in command:
                said = re.sub(r"(?m)^.*Restarting data prefetching from start\.\n", "", said)
            said = said + "\n" if said else ""
            text = f"$ {command}\n{said}{out}[exit status {status}]\n"
            (LOGS / f"{log}.txt").write_text(text.replace(str(folder), "."))
            print(f"{log}.txt: exit status {status}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
