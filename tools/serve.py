"""Serve an index: a page in the browser that finds the nearest images of a picture, and an API for programs.

    python tools/serve.py INDEX [--host 127.0.0.1] [--port 8000] [--workers 1] [--allow-host NAME]

INDEX is a folder that tools/build_index.py wrote. The page takes a picture by drop, paste or file, or one of the index,
and shows its nearest images; the API is described at /openapi.json. Ctrl-C ends the server.

It answers this machine alone unless --host names another address. It asks nobody who they are: an address that others
reach shows them the pictures of the index. A host name that it is to be asked by is given with --allow-host, once for
each; localhost and IP addresses need no mention. What is uploaded is not kept.
"""

from __future__ import annotations

import argparse
import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("index", metavar="INDEX", help="a folder written by tools/build_index.py")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument("--workers", type=int, default=1, help="processes; default: 1")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a host name it is asked by")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: expected at least 1")
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port}: expected 0 to 65535")
    limit_libraries(options.workers)

    from dhn.progress import console
    from dhn.search.items import SearchError
    from dhn.search.server.run import listen, serve

    try:
        listening = listen(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"serve: cannot listen at {where} ({error.strerror}); choose another --port or --host", file=sys.stderr)
        return 1
    port = listening.getsockname()[1]
    name = f"[{options.host}]" if ":" in options.host else options.host

    def ready() -> None:
        console.print(f"http://{name}:{port}/  (Ctrl-C ends the server)")

    with listening:
        try:
            serve(options.index, listening, options.allow_host, options.workers, ready=ready)
        except (SearchError, OSError) as error:
            print(f"serve: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    return 0


def limit_libraries(workers: int) -> None:
    """Bounds for libraries that read them when they are imported: threads that compute, and pixels of a picture."""
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads without work do not spin
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")  # a second bound behind that of the header
    os.environ.setdefault("GLOG_minloglevel", "2")  # the nets' layers are not listed


if __name__ == "__main__":
    sys.exit(main())
