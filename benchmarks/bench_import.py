"""The time that `import pellucid` takes, in new processes, with torch's own beside it.

python benchmarks/bench_import.py
python benchmarks/bench_import.py --quick   # two processes of each, to see that it works
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import torch
from measuring import arguments_parser, finish, surroundings

TARGET_SECONDS = 0.3
RESULTS = Path(__file__).parent / "results" / "import.json"
PROGRAM = """
import sys, time
started = time.perf_counter()
import {name}
print(time.perf_counter() - started, "torch" in sys.modules)
"""


def imported(name: str) -> tuple[float, bool]:
    """Seconds that a new process takes to import a package, and whether torch came with it."""
    program = [sys.executable, "-c", PROGRAM.format(name=name)]
    seconds, torch_too = subprocess.run(program, check=True, capture_output=True, text=True).stdout.split()
    return float(seconds), torch_too == "True"


def main() -> int:
    given = arguments_parser(__doc__, RESULTS, repeats=9).parse_args()
    pairs = [(imported("pellucid"), imported("torch")) for _ in range(2 if given.quick else given.repeats)]
    ours, with_torch = [seconds for (seconds, _), _ in pairs], any(found for (_, found), _ in pairs)
    middle = statistics.median(ours)
    report = {
        "surroundings": surroundings(torch.device("cpu")),
        "seconds": {"pellucid": middle, "torch": statistics.median(seconds for _, (seconds, _) in pairs)},
        "all_seconds": ours,
        "loads_torch": with_torch,
    }
    print(f"import pellucid: {middle:.3f} s (at most {TARGET_SECONDS}), {'with' if with_torch else 'without'} torch")
    print(f"import torch:    {report['seconds']['torch']:.3f} s")
    return finish(report, given.output, not with_torch and (given.quick or middle <= TARGET_SECONDS))


if __name__ == "__main__":
    sys.exit(main())
