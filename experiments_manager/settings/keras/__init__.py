"""What is known of Keras 3 and TensorFlow by their names alone: what to write instead of what."""
