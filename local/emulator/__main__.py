"""Run the emulator with its corrections: `python -m local.emulator`, in the emulator's environment."""

import os

from local.emulator.version import check


def main() -> None:
    """Serve until told to stop.

    Raises:
        SystemExit: ministack is not installed in the version that is corrected here.
    """
    check()
    os.environ.pop("PYTHONPATH", None)  # it led here; the functions, which inherit the environment, don't need it
    # Imported now: another version might not even have what these modules replace.
    from ministack import app

    from local.emulator import (
        apigateway,
        cloudformation,
        cloudwatch,
        eventbridge,
        iam,
        lambda_,
        scheduler,
        sqs,
        stepfunctions,
    )

    for service in (apigateway, cloudformation, cloudwatch, eventbridge, iam, lambda_, scheduler, sqs, stepfunctions):
        service.install()
    app.main()


if __name__ == "__main__":
    main()
