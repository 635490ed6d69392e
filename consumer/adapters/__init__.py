"""One driver each, translating its errors at the border."""
