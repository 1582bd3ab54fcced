"""`python -m radprobe`."""

from radprobe.cli import main

main()
