"""What an event costs, beside a bare loop that does the same work and keeps no promise: `python -m tests.bench`."""
