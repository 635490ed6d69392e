"""The wire: events, reasons and broker topology, as pydantic models and frozen values."""
