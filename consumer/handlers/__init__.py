"""One callable per event type, on ports."""
