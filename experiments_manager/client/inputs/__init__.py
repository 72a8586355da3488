"""What a model is asked about: files, folders, tables, images, cameras."""
