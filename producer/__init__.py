"""For upstream generators: publish `image.generated` and know that the broker has it."""
