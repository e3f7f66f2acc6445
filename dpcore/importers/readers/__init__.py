"""One module for each format of annotations: files in, people in the common form out."""
