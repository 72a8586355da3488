"""What model server and client share: messages, data types, tensors, wire format, status codes."""
