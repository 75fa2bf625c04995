"""Runs the sandbox: `python -m local.sandbox --port 8700 --state .local/sandbox.json`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from local.sandbox import oidc
from local.sandbox.server import Sandbox, SandboxServer


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m local.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one, which is printed")
    parser.add_argument("--state", type=Path, help="a file to keep files and events in over restarts")
    parser.add_argument("--issuer-key", type=Path, help="a file to keep the OIDC issuer's key in over restarts")
    parser.add_argument("--verbose", action="store_true", help="print each request")
    options = parser.parse_args()
    if options.issuer_key:
        oidc.keep_key(options.issuer_key)
    server = SandboxServer(Sandbox(options.state), options.host, options.port, is_verbose=options.verbose)
    signal.signal(signal.SIGTERM, _stop)
    print(server.url, flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr)
    finally:
        server.server_close()


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
