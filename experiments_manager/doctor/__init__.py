"""What a machine offers to runs, and what to do about what is missing; without TensorFlow in this process."""
