"""Serve an index: a page in the browser that finds the nearest images of a picture, and an API for programs.

    python tools/serve.py INDEX [--host 127.0.0.1] [--port 8000] [--workers 1] [--allow-host NAME]
    python tools/serve.py cifar10 [--variant dhn] [--bits 48]

INDEX is a folder that tools/build_index.py wrote, or the data set of a run (--variant, --bits, --net, --seed) whose
folder holds one. The page takes a picture by drop, paste or file, or one of the index, and shows its nearest images.
The API is described at /openapi.json. Ctrl-C ends the server. An index that is appended to or replaced meanwhile is
opened again, if its digests are right.

It answers this machine alone unless --host names another address. It asks nobody who they are: whoever reaches that
address sees the pictures of the index. A host name that it is to be asked by is given with --allow-host, once for each;
localhost and IP addresses need no mention. What is uploaded is not kept.
"""

from __future__ import annotations

import os
import sys

import dhn  # first: it says so where the project is not installed
from atomic_writes.command_lines import Parser


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    limit_libraries()
    from dhn.search.command_line import add_index, find_index

    parser = Parser(description=(__doc__ or "").split("\n")[0])
    add_index(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; default: 127.0.0.1, this machine")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0: any free one")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes; default: 1")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="a host name it is asked by")
    parser.add_argument("--gpu", type=int, metavar="N", help="compute codes of pictures on this GPU")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: expected at least 1")
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port}: expected 0 to 65535")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.workers)))

    from dhn.progress import console
    from dhn.search.server.run import listen, serve

    try:
        index = find_index(options)
        listening = listen(options.host, options.port)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        print(f"serve: cannot listen at {where} ({error.strerror}); choose another --port or --host", file=sys.stderr)
        return 1
    except (ValueError, RuntimeError) as error:
        print(f"serve: {dhn.sentence(error)}", file=sys.stderr)
        return 1
    name = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{name}:{listening.getsockname()[1]}/"
    with listening:
        try:
            serve(
                index,
                listening,
                options.allow_host,
                options.workers,
                options.gpu,
                ready=lambda: console.print(f"{address}  (Ctrl-C ends the server)"),
            )
        except (ValueError, OSError) as error:
            print(f"serve: {dhn.sentence(error)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            pass
    return 0


def limit_libraries() -> None:
    """Set what libraries read when they are imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # numpy multiplies nothing here
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads without work do not spin
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "50000000")  # a second bound, behind that of the header
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # a picture that is cut off is answered, not logged
    os.environ.setdefault("GLOG_minloglevel", "1")  # warnings, but not a line for every layer and blob


if __name__ == "__main__":
    sys.exit(dhn.run(main))
