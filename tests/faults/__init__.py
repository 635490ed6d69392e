"""The proof that nothing is lost: real services, every fault we can produce, and a ledger: `python -m tests.faults`."""
