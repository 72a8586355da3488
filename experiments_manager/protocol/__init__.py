"""What model server and client share: messages, data types, tensors, wire format and status codes; no TensorFlow."""
