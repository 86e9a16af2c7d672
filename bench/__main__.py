"""Run every figure, write bench/results.json and print a table."""

from __future__ import annotations

import importlib
import json
import os
import platform
import ssl
import sys
import traceback
from pathlib import Path

from bench.rig import Figure

ROOMS = (
    "http_server",
    "tokens",
    "policy",
    "handshake",
    "httpx_client",
    "issuance",
    "rotation",
    "memory",
    "flood",
)
RESULTS = Path(__file__).with_name("results.json")


def main(arguments: list[str]) -> int:
    """Run the rooms named in the arguments (all by default); `--quick` takes fewer rounds."""
    if {"-h", "--help"} & set(arguments):
        print(f"usage: python -m bench [--quick] [{'|'.join(ROOMS)}] ...")
        return 0
    quick = "--quick" in arguments
    wanted = [a for a in arguments if not a.startswith("-")] or list(ROOMS)
    unknown = sorted(set(wanted) - set(ROOMS))
    if unknown:
        print(f"error: no figures called {', '.join(unknown)}; choose from {', '.join(ROOMS)}")
        return 2
    figures: list[Figure] = []
    for room in wanted:
        print(f"measuring {room} ...", file=sys.stderr, flush=True)
        figures += _in_a_process_of_its_own(room, quick=quick)
    _print(figures)
    if not quick:
        _write(figures)
        print(
            f"\nwritten to {RESULTS.name}; next: compare the ratios with the last run's (git diff)"
        )
    return 0


def _in_a_process_of_its_own(room: str, *, quick: bool) -> list[Figure]:
    """Keep one figure's threads, pinning and memory from touching the next one."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            found = importlib.import_module(f"bench.{room}").figures(quick=quick)
            os.write(write, json.dumps([vars(figure) for figure in found]).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - the child reports and ends; the parent says so
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    if os.waitpid(pid, 0)[1] != 0:
        raise SystemExit(f"error: {room} failed; its traceback is above")
    return [Figure(**row) for row in json.loads(data)]


def _print(figures: list[Figure]) -> None:
    head = ("figure", "ours", "baseline", "unit", "ratio", "target", "")
    rows = [head, *map(_row, figures)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if i in {0, 3, 6} else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def _row(f: Figure) -> tuple[str, ...]:
    return (
        f.name,
        f"{f.value:,.2f}",
        "" if f.baseline is None else f"{f.baseline:,.2f}",
        f.unit,
        "" if f.ratio is None else f"{f.ratio:.3f}",
        f.target,
        "SHORT" if f.short_of_target() else "",
    )


def _write(figures: list[Figure]) -> None:
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    known["machine"] = {
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "processors": os.cpu_count(),
    }
    for f in figures:
        known[f.name] = {
            "value": round(f.value, 4),
            "unit": f.unit,
            "baseline": None if f.baseline is None else round(f.baseline, 4),
            "ratio": None if f.ratio is None else round(f.ratio, 4),
            "target": f.target or None,
            "note": f.note or None,
        }
    RESULTS.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
