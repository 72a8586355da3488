"""Kafka: topics of samples; what is sent, how it is read, where one is in it. No TensorFlow."""
