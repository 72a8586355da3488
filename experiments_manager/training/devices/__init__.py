"""What a run computes on: devices, precision, and the GPUs of a job."""
