"""Look up every locked package in the vulnerability database OSV (`make lint`); exit status 1 where one is known there.

    python locks/audit.py

Where the database does not answer within SECONDS, one line says so, and the exit status is 0. PIP_AUDIT_OSV_URL names
another server of OSV's API.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

from pip_audit._service import OsvService

LOCKS = [str(Path(__file__).with_name(name)) for name in ("packages.txt", "torch_cuda.txt")]
ACCEPTED: dict[str, str] = {}  # vulnerability: why it does not matter here
SECONDS = 5
QUERY = b'{"package": {"name": "pip", "ecosystem": "PyPI"}, "version": "26.3"}'


def refusal(url: str) -> str | None:
    """Why OSV's server does not answer; None if it does."""
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, QUERY), timeout=SECONDS) as answer:
                answer.read()
            answers.put(None)
        except (OSError, ValueError) as error:
            answers.put(str(error))

    threading.Thread(target=ask, daemon=True).start()  # a thread: looking up a host's name has no time limit
    try:
        return answers.get(timeout=SECONDS)
    except queue.Empty:
        return f"no answer within {SECONDS} s"


def main() -> int:
    """Audit the locks; returns the exit status."""
    url = os.environ.get("PIP_AUDIT_OSV_URL", OsvService.DEFAULT_OSV_URL)
    if reason := refusal(url):
        print(f"pip-audit: skipped, the vulnerability database does not answer ({reason})")
        return 0
    command = [
        str(Path(sys.executable).with_name("pip-audit")), "--vulnerability-service", "osv", "--osv-url", url,
        "--disable-pip", "--progress-spinner", "off", "--desc", "off",
    ]  # fmt: skip
    command += [word for lock in LOCKS for word in ("--requirement", lock)]
    command += [word for name in ACCEPTED for word in ("--ignore-vuln", name)]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
