"""Every claim of speed beside its baseline: `python -m benchmarks [NAME ...] [--quick]`, or `make bench`.

One table, and the same as JSON lines with `work, measured, baseline, ratio, target` and what it ran on. Each benchmark
runs in a process of its own, so that none inherits another's threads or memory; one whose packages or data are not here
is left out and says so. `--quick` shortens every work: a couple of minutes on two free cores, and rougher figures.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from benchmarks.catalogue import MODULES, measure


def hardware() -> str:
    """What this runs on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = found[0] if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MODULES)}; all where none is given")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in MODULES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(MODULES)}")
    where = hardware()
    print(f"{where}; load {os.getloadavg()[0]:.1f}")
    print(f"{'work':92} {'measured':>11} {'baseline':>11} {'unit':8} {'ratio':>8} {'by CPU':>8} {'target':>8}")
    lines = []
    for name in options.names or MODULES:
        began = time.perf_counter()
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
            rows, missing = pool.submit(measure, name, options.quick).result()
        load = os.getloadavg()[0]
        if missing is not None:
            print(f"-- {name}: left out: {missing}", flush=True)
            continue
        print(f"-- {name}: {time.perf_counter() - began:.0f} s, load {load:.1f}")
        for row in rows:
            print(row, flush=True)
            lines.append(json.dumps({"benchmark": name, **row.to_dict(), "hardware": where, "load": load}))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
