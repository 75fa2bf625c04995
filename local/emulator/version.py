"""Which version of ministack is corrected here: the pinned one, since the corrections replace its private functions."""

import re
from importlib.metadata import version
from pathlib import Path

PINS = Path(__file__).resolve().parents[2] / "requirements" / "emulator.txt"


def check() -> None:
    """Compare what is installed with what is pinned.

    Raises:
        SystemExit: they differ.
    """
    installed, corrected = version("ministack"), pinned()
    if installed != corrected:
        raise SystemExit(
            f"ministack {installed} is installed, but local/emulator corrects {corrected} (pinned in {PINS.name});"
            " run `make` again, or adapt the corrections and change the pin"
        )


def pinned() -> str:
    """The version of ministack that the requirements pin."""
    found = re.search(r"^ministack==(\S+)", PINS.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{PINS} pins no version of ministack")
    return found[1]
