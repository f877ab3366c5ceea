"""What happens to a service in time: start, registration, signals, stop."""
