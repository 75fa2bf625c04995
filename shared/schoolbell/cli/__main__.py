"""`python -m schoolbell.cli`, where the script is not installed."""

from schoolbell.cli.commands import main

main()
