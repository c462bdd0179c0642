"""``python -m tests.fuzz [SECONDS]``: coverage-guided fuzzing of every target for an equal share of the time, each in a process of its own.

What is found is an exception, and the bytes that led to it, which are left in ``build/fuzz/crash-TARGET-…``. Needs atheris (``pip install -e '.[fuzz]'``).
"""

import subprocess
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.targets import SEEDS, TARGETS

MADE = Path("build/fuzz")


def one(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    corpus = MADE / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed{number}").write_bytes(seed)
    flags = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-timeout=10",
        "-rss_limit_mb=1024",
        "-verbosity=0",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *flags, f"-artifact_prefix={MADE}/crash-{name}-", str(corpus)], TARGETS[name])
    atheris.Fuzz()


def main(seconds: int) -> int:
    """Fuzz all; the exit code."""
    found = []
    share = max(1, seconds // len(TARGETS))
    for name in TARGETS:
        print(f"{name}: {share} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", name, str(share)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        runs = [line for line in ended.stderr.splitlines() if "number_of_executed_units" in line]
        print("  ", *runs or ["ended early"], flush=True)
        if ended.returncode:
            found.append(name)
            said = [
                line[:400]
                for line in (ended.stdout + ended.stderr).splitlines()
                if not line.startswith(("INFO", "WARNING", "0x"))
            ]
            print("\n".join(said), flush=True)
    print(f"found something in: {', '.join(found)}" if found else "found nothing")
    return 1 if found else 0


if __name__ == "__main__":
    if len(sys.argv) == 3:
        one(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
