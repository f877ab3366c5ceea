"""What several test modules need: real service processes, free ports, waiting."""
