"""The benchmark: `make bench`, or `python -m bench rps` for one part. All of it runs on loopback."""
