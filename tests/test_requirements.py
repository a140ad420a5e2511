"""requirements.txt pins what pyproject.toml allows: each package that it names, in its range, and nothing else.

The locks have those versions, and all that they need, with hashes.
"""

from __future__ import annotations

import http.server
import importlib.metadata
import json
import re
import socket
import sys
import threading
from itertools import chain
from pathlib import Path

import audit
import lock
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # comes with hatchling

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
NO_WHEEL = {"3.13": {"plyvel"}}  # packages that a version of Python does without


def ranges() -> list[Requirement]:
    """What pyproject.toml names: to run, in its extras, to build. Extras that name extras name nothing new."""
    project = PROJECT["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    every = map(Requirement, [*project["dependencies"], *extras, *PROJECT["build-system"]["requires"]])
    return [each for each in every if each.name != project["name"]]


def pins(path: Path, python: str, machine: str = "x86_64") -> dict[str, str]:
    """The versions that requirements.txt or a lock pins for a version of Python on Linux, by package."""
    rows = lock.entries(path.read_text()) if path.parent == lock.FOLDER else path.read_text().splitlines()
    lines = [row.split("\\")[0].split("#")[0].strip() for row in rows]
    where = {"python_version": python, "python_full_version": f"{python}.1", "platform_machine": machine}
    versions = {}
    for pin in map(Requirement, filter(None, lines)):
        (exact,) = pin.specifier
        assert exact.operator == "==", f"{pin}: expected an exact version"
        if pin.marker is None or pin.marker.evaluate({"sys_platform": "linux", **where}):
            assert pin.name not in versions, f"{pin.name} has two pins for Python {python}"
            versions[pin.name] = exact.version
    return versions


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_are_of_what_pyproject_names_and_in_its_ranges(python):
    versions = pins(lock.REQUIREMENTS, python)
    assert set(versions) == {each.name for each in ranges()} - NO_WHEEL.get(python, set())
    for each in ranges():
        version = versions.get(each.name)
        assert version is None or each.specifier.contains(version), f"{each.name}=={version}: expected {each.specifier}"


def test_a_package_has_one_range():
    words = [str(each) for each in ranges()]
    assert len({each.name for each in ranges()}) == len(words), words


def test_the_citation_has_the_version():
    version = PROJECT["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", PYTHONS)
def test_the_locks_have_the_pins(python, machine):
    versions = pins(lock.REQUIREMENTS, python, machine)
    torch = versions.pop("torch")
    assert versions.items() <= pins(lock.PACKAGES, python, machine).items(), "run `make lock`"
    assert pins(lock.CPU, python, machine) == {"torch": f"{torch}+cpu"}, "run `make lock`"
    assert pins(lock.CUDA, python, machine)["torch"] == torch, "run `make lock`"


@pytest.mark.parametrize("path", [lock.PACKAGES, lock.CPU, lock.CUDA], ids=lambda path: path.stem)
def test_a_lock_has_hashes_and_no_addresses(path):
    entry = r"[a-z0-9][\w.-]*==[\w.+]+(?: ; [^\n;\\]+)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+"
    assert re.fullmatch(rf"# [^\n]*\n(?:{entry})+", path.read_text()), f"{path}: expected packages with hashes alone"


def test_the_locks_have_all_that_the_packages_need():
    """What each installed package of the lock says that it needs is in the lock, in the version it needs."""
    python = ".".join(map(str, sys.version_info[:2]))
    versions = pins(lock.PACKAGES, python) | pins(lock.CUDA, python)
    missing = []
    for name in pins(lock.PACKAGES, python):
        for text in importlib.metadata.distribution(name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                version = versions.get(canonicalize_name(needed.name))
                if needed.name != "pip" and (version is None or not needed.specifier.contains(version)):
                    missing.append(f"{name} needs {needed}, the lock has {version}")
    assert missing == []


@pytest.fixture
def database(tmp_path, monkeypatch):
    """A server of OSV's API on loopback that knows a vulnerability of jinja2; the lock of two packages to look up."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            known = [{"id": "TEST-1", "summary": "", "affected": []}] if query["package"]["name"] == "jinja2" else []
            answer = json.dumps({"vulns": known} if known else {}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *arguments):
            pass

    packages = tmp_path / "packages.txt"
    packages.write_text("".join(f"{name}==1.0 \\\n    --hash=sha256:{'0' * 64}\n" for name in ("jinja2", "six")))
    monkeypatch.setattr(audit, "LOCKS", [str(packages)])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{server.server_port}/v1/query")
        yield server
        server.shutdown()


def test_a_known_vulnerability_fails_lint(database, monkeypatch, capfd):
    assert audit.main() == 1
    assert re.search(r"^jinja2 +1\.0 +TEST-1", capfd.readouterr().out, re.MULTILINE)
    monkeypatch.setattr(audit, "ACCEPTED", {"TEST-1": "a template of ours alone"})
    assert audit.main() == 0


def test_without_the_vulnerability_database_lint_passes_and_says_so(monkeypatch, capsys):
    monkeypatch.setattr(audit, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and says nothing
        port = silent.getsockname()[1]
        monkeypatch.setenv("PIP_AUDIT_OSV_URL", f"http://127.0.0.1:{port}/v1/query")
        assert audit.main() == 0
    assert audit.main() == 0  # nobody listens any more
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("pip-audit: skipped, the vulnerability data") for line in lines)
