"""The emulator refuses to start on another version of ministack than the one it corrects."""

import subprocess
from pathlib import Path

import pytest

from local.emulator.version import pinned
from local.home import CHECKOUT, ENVIRONMENTS


def start(*path: Path) -> subprocess.CompletedProcess[str]:
    """Starts the emulator in its environment, with further packages before those that are installed."""
    return subprocess.run(
        [ENVIRONMENTS / "emulator" / "bin" / "python", "-P", "-m", "local.emulator"],
        env={"PYTHONPATH": ":".join(map(str, (*path, CHECKOUT)))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("installed", ["1.5.32", "2.0.0"])
def test_another_version_of_ministack_is_refused_at_the_start(tmp_path: Path, installed: str) -> None:
    metadata = tmp_path / f"ministack-{installed}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.4\nName: ministack\nVersion: {installed}\n")
    ended = start(tmp_path)
    assert ended.returncode == 1
    said = f"ministack {installed} is installed, but local/emulator corrects {pinned()} (pinned in emulator.txt)"
    assert ended.stderr.startswith(said)
    assert "Traceback" not in ended.stderr
