"""What people watch: progress, TensorBoard, tables and pictures."""
