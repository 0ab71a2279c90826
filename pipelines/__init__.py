"""radtransfer: transfer learning on radiographs, from DICOM to a model that a clinician can review and promote."""

__version__ = "0.1.0"
