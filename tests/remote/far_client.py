"""A client on another host: steps rows until the server is lost, and says how far it came."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import Any

import numpy as np

from benchmarks.soak_workers import NUM_ROWS, Ledger
from shoal.remote import rows as remote
from shoal.remote.settings import Remote, Terms
from shoal.types import EnvError

SAID_EVERY_S = 0.25


def main(name: str, ca: str, token_file: str, plane: Any, timeout_s: str) -> None:
    """Says `steps N` now and then, and at the end `lost after S s: ERROR`."""
    terms = Terms(Remote(ca=ca, token_file=token_file, plane=plane), float(timeout_s))
    with closing(remote.make(name, NUM_ROWS, terms)) as rows:
        rows.reset(1)
        ledger = Ledger(rows.recv().obs)
        said = last = time.monotonic()
        try:
            while True:
                ledger.sent += 1
                rows.send(slice(0, NUM_ROWS), np.zeros(NUM_ROWS, np.int64))
                ledger.check(rows.recv())
                last = time.monotonic()
                if last - said > SAID_EVERY_S:
                    said = last
                    print("steps", ledger.counts["steps"], flush=True)
        except EnvError as error:
            assert not ledger.counts["cuts"]
            print(f"lost after {time.monotonic() - last:.1f} s: {error}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
