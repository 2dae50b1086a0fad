"""`python -m opsq.concurrency.patched LIBRARY ARGS...`: the `opsq` command in a process whose threads are greenlets.

Patching comes before anything else is imported; so this module imports nothing of opsq. Only the child of a green pool
is started so.
"""

from __future__ import annotations

import runpy
import sys
import warnings


def patch(library: str) -> None:
    """Make this process's sockets, threads, locks and sleeps those of gevent's or eventlet's greenlets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # eventlet says at each import that it is deprecated
        if library == "gevent":
            from gevent import monkey

            monkey.patch_all()
        else:
            import eventlet

            eventlet.monkey_patch()


def main() -> None:
    """Patch, then be the `opsq` command."""
    library = sys.argv.pop(1)
    try:
        patch(library)
    except Exception as error:
        version = ".".join(str(part) for part in sys.version_info[:2])
        sys.exit(f"opsq: the pool {library} does not work with Python {version} here: {error}")
    sys.argv[0] = "opsq"
    runpy.run_module("opsq", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
