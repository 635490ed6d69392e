"""Turns the images of AI generators into durable objects, rows and events."""
