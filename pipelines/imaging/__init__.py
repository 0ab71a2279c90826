"""From DICOM pixel data to the fixed-size grey images that networks learn from."""
