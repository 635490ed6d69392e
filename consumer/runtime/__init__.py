"""What is running while the program runs, on ports."""
