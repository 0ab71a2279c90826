"""Where radiographs come from: a folder, a DICOMweb server, a PACS, or what was pushed to us, behind one protocol.

What comes over a network waits, still identified, in the inbox; from there it is taken in as the files of any folder are.
"""
