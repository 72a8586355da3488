"""Reading images, tables and other files into arrays and tf.data."""
