"""Run every `bench_*.py` and write the figures to `docs/benchmarks.md`."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from manifests import atomic

FOLDER = Path(__file__).resolve().parent
REPORT = FOLDER.parent / "docs" / "benchmarks.md"


def run_benchmark(script: Path) -> dict[str, object]:
    """Run one benchmark script and return the JSON object of its last line."""
    command = [sys.executable, "-m", f"benchmarks.{script.stem}", "--json"]
    finished = subprocess.run(command, check=False, capture_output=True, text=True, cwd=FOLDER.parent)
    if finished.returncode != 0:
        sys.exit(f"{script.name} stopped with code {finished.returncode}:\n{finished.stderr.strip()}")
    figures: dict[str, object] = json.loads(finished.stdout.strip().splitlines()[-1])
    return figures


def machine() -> str:
    """One line on the machine that the figures come from."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"


def main() -> None:
    """Run all benchmarks in order and write the report."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. CPU seconds come from process accounting; ratios compare two ways inside one run;",
        "each figure is the median of several repeats. What a figure means stands at the top of its script.",
        "",
        f"Machine: {machine()}.",
        "",
        "| script | figure | value |",
        "|---|---|---|",
    ]
    for script in sorted(FOLDER.glob("bench_*.py")):
        print(f"running {script.name} ...", flush=True)
        for name, value in run_benchmark(script).items():
            if isinstance(value, dict):
                continue  # stages of a figure: the script itself prints them as a table
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            print(f"  {name} = {shown}")
            lines.append(f"| `{script.name}` | `{name}` | {shown} |")
    atomic.write_text(REPORT, "\n".join(lines) + "\n")
    print(f"written: {REPORT}")


if __name__ == "__main__":
    main()
