"""The Drive gateway, over real HTTP."""

from uuid import uuid4

import pytest

from schoolbell.gateways.errors import Gone, NeverWorks, Throttled, Unavailable
from schoolbell.gateways.google.drive import COPY_PROPERTY, FileState, GoogleDrive, drive_of
from schoolbell.resilience.errors import NoBudget
from schoolbell.settings import Settings
from tests.fixtures.google import Google, budget_spent


def test_reads_a_file(google: Google, drive: GoogleDrive, account: str) -> None:
    file = google.add_file(account, name="Scales", mimeType="application/pdf", appProperties={"a": "b"})
    read = drive.get(file)
    assert (read.id, read.name, read.mime_type, read.trashed) == (file, "Scales", "application/pdf", False)
    assert read.app_properties == {"a": "b"}


def test_a_deleted_file_is_gone(drive: GoogleDrive) -> None:
    with pytest.raises(Gone):
        drive.get("1nothing")


def test_another_teachers_file_is_as_good_as_gone(google: Google, drive: GoogleDrive) -> None:
    with pytest.raises(Gone):
        drive.get(google.add_file("another account"))


def test_copies_a_file_into_a_folder_with_its_key(google: Google, drive: GoogleDrive, account: str) -> None:
    file, folder = google.add_file(account, name="Scales"), google.add_file(account, name="Ana")
    copy = drive.copy(file, folder, "a-key", "Scales")
    [stored] = google.copies(account)
    assert stored["id"] == copy.id
    assert stored["parents"] == [folder]
    assert stored["name"] == "Scales"
    assert stored["appProperties"] == {COPY_PROPERTY: "a-key"}


def test_finds_a_copy_by_its_key_and_no_other(google: Google, drive: GoogleDrive, account: str) -> None:
    file, folder = google.add_file(account), google.add_file(account)
    copy = drive.copy(file, folder, "a-key")
    drive.copy(file, folder, "another-key")
    assert drive.find_copy("a-key") == copy
    assert drive.find_copy("a-ke") is None


def test_finds_a_copy_in_the_trash_only_if_there_is_no_better(google: Google, drive: GoogleDrive, account: str) -> None:
    first = google.add_file(account, appProperties={COPY_PROPERTY: "key"}, trashed=True)
    found = drive.find_copy("key")
    assert found is not None
    assert found.id == first
    second = google.add_file(account, appProperties={COPY_PROPERTY: "key"})
    found = drive.find_copy("key")
    assert found is not None
    assert found.id == second


@pytest.mark.parametrize("key", ["it's", "back\\slash", "' or trashed = true or '"])
def test_a_key_cannot_break_out_of_the_query(google: Google, drive: GoogleDrive, account: str, key: str) -> None:
    google.add_file(account, appProperties={COPY_PROPERTY: "other"}, trashed=True)
    assert drive.find_copy(key) is None
    mine = google.add_file(account, appProperties={COPY_PROPERTY: key})
    found = drive.find_copy(key)
    assert found is not None
    assert found.id == mine


def test_the_longest_key_of_a_copy_fits_a_property(google: Google, drive: GoogleDrive, account: str) -> None:
    file, folder = google.add_file(account), google.add_file(account)
    drive.copy(file, folder, f"{uuid4()}:{uuid4()}")
    with pytest.raises(NeverWorks):
        drive.copy(file, folder, "x" * 111)


def test_a_file_id_cannot_break_out_of_the_path(drive: GoogleDrive) -> None:
    with pytest.raises(Gone):
        drive.get("../../calendar/v3/calendars/primary/events?x=")


def test_checks_many_files_in_one_request(google: Google, drive: GoogleDrive, account: str) -> None:
    present = [google.add_file(account) for _ in range(60)]
    trashed = [google.add_file(account, trashed=True) for _ in range(20)]
    gone = [f"1gone{n}" for n in range(20)]
    wanted = [file for files in zip(present[:20], trashed, gone, strict=True) for file in files] + present[20:]
    states = drive.check(wanted)
    assert list(states) == wanted
    assert [file for file, state in states.items() if state is FileState.PRESENT] == present
    assert [file for file, state in states.items() if state is FileState.TRASHED] == trashed
    assert [file for file, state in states.items() if state is FileState.GONE] == gone
    assert google.requests("batch") == 1


def test_each_file_of_a_batch_is_paid_for(google: Google, settings: Settings, account: str) -> None:
    teacher = uuid4()
    drive_of(teacher, account, settings).check(["1a", "1b", "1c"])
    assert budget_spent("google-drive", teacher) == budget_spent("google-drive") == 3


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 403, "reason": "rateLimitExceeded"}, {"status": 403}])
def test_a_file_that_google_could_not_answer_for_is_not_gone(
    google: Google, drive: GoogleDrive, account: str, fault: dict[str, object]
) -> None:
    sick, well = google.add_file(account), google.add_file(account)
    google.fail(path=f"/files/{sick}$", **fault)
    assert drive.check([sick, well]) == {sick: FileState.UNANSWERED, well: FileState.PRESENT}


def test_a_batch_that_failed_as_a_whole_is_not_now(google: Google, drive: GoogleDrive) -> None:
    google.fail(path="^/batch", status=503)
    with pytest.raises(Unavailable):
        drive.check(["1a"])
    google.recover()
    google.fail(path="^/batch", status=429, retry_after=5)
    with pytest.raises(Throttled):
        drive.check(["1a"])


def test_a_batch_whose_answer_is_cut_off_leaves_the_rest_unanswered(
    google: Google, drive: GoogleDrive, account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [google.add_file(account) for _ in range(3)]
    whole = drive._api.call

    def cut_off(request: object) -> object:
        answer = whole(request)  # type: ignore[arg-type]
        return type(answer)(answer.status, answer.headers, answer.body[: len(answer.body) // 2])

    monkeypatch.setattr(drive._api, "call", cut_off)
    states = drive.check(files)
    assert set(states) == set(files)
    assert FileState.UNANSWERED in states.values()
    assert FileState.GONE not in states.values()


def test_refuses_a_batch_that_google_would_refuse(drive: GoogleDrive) -> None:
    with pytest.raises(ValueError, match="at most 100"):
        drive.check([f"1{n}" for n in range(101)])


def test_a_batch_never_costs_more_than_a_budget_holds(settings: Settings, account: str) -> None:
    small = settings.model_copy(update={"google_drive_calls_per_teacher": 7})
    assert drive_of(uuid4(), account, small).largest_batch == 7


def test_without_budget_google_is_not_called(google: Google, settings: Settings, account: str) -> None:
    small = settings.model_copy(update={"google_drive_calls_per_teacher": 1})
    drive = drive_of(uuid4(), account, small)
    drive.find_copy("x")
    with pytest.raises(NoBudget):
        drive.find_copy("x")
    assert google.requests("files.list") == 1
