"""Where an instance of the embedded stack keeps its files, and what it remembers between two commands."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field

CHECKOUT: Final = Path(__file__).resolve().parents[1]
DEFAULT_HOME: Final = CHECKOUT / ".local"
ENVIRONMENTS: Final = CHECKOUT / ".venv"


class RecordedProcess(BaseModel):
    """A process we started. Its start tells it from a later one with the same number."""

    pid: int
    started: float


class State(BaseModel):
    """What is running, and what was deployed to it."""

    stack: str = "schoolbell"
    enforces_iam: bool = False
    ports: dict[str, int] = Field(default_factory=dict)
    processes: dict[str, RecordedProcess] = Field(default_factory=dict)
    containers: str = ""
    """The name or address by which containers reach this machine; empty when none is to."""
    relayed: list[str] = Field(default_factory=list)
    """What the relay for containers was started with: its address, and the ports; empty when none runs."""
    deployed: str = ""
    """Digest of the deployed bundle and its parameters; empty when nothing is."""


class Home:
    """The folder of one instance. Two instances, or two checkouts, share nothing but what `make build` makes."""

    def __init__(self, folder: Path = DEFAULT_HOME) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)

    @property
    def postgres(self) -> Path:
        return self.folder / "postgres"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def scratch(self) -> Path:
        """The emulator's temporary files: workers and unpacked layers. Emptied whenever it starts."""
        return self.folder / "tmp"

    @property
    def exports(self) -> Path:
        """The shell exports for using the stack."""
        return self.folder / "env"

    @property
    def variables(self) -> Path:
        """The functions' environments, for `sam local --env-vars`."""
        return self.folder / "env-vars.json"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    def state(self) -> State:
        """What is remembered; a fresh state where there is nothing, or nothing readable."""
        try:
            return State.model_validate_json(self._state_file.read_text())
        except (FileNotFoundError, ValueError):
            return State()

    def remember(self, state: State) -> None:
        """Replace what is remembered, in one step."""
        written = self._state_file.with_suffix(".new")
        written.write_text(state.model_dump_json(indent=2))
        written.replace(self._state_file)

    @property
    def _state_file(self) -> Path:
        return self.folder / "state.json"
